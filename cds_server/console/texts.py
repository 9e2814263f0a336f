"""What the console says, in English and Spanish: one table, one key a line."""

from typing import Literal

Language = Literal["en", "es"]

_TEXTS: dict[str, tuple[str, str]] = {
    "title": ("Audit trail", "Registro de auditoría"),
    "skip": ("Skip to the events", "Ir a los eventos"),
    "about": (
        "Everything the server decided, showed, gave out and changed. Persons are pseudonyms; a patient id "
        "entered here is turned into one before it is searched: an id alone means whoever has it, at every "
        "FHIR server; an address (https://server/fhir/Patient/id) means that server's patient. What you ask "
        "here is recorded too.",
        "Todo lo que el servidor decidió, mostró, entregó y cambió. Las personas son seudónimos; un "
        "identificador de paciente escrito aquí se convierte antes de buscarlo: un identificador solo "
        "significa quien lo tenga, en cualquier servidor FHIR; una dirección "
        "(https://servidor/fhir/Patient/id) significa el paciente de ese servidor. Lo que usted consulta "
        "también queda registrado.",
    ),
    "from": ("From (date)", "Desde (fecha)"),
    "to": ("To (date, inclusive)", "Hasta (fecha, incluida)"),
    "patient": ("Patient (id or pseudonym)", "Paciente (identificador o seudónimo)"),
    "agent": ("Client or user", "Cliente o usuario"),
    "activity": ("Activity", "Actividad"),
    "outcome": ("Outcome", "Resultado"),
    "entity": ("About (reference, hook instance, request)", "Sobre (referencia, instancia, petición)"),
    "any": ("any", "cualquiera"),
    "success": ("success", "correcto"),
    "minor": ("refused (minor failure)", "rechazado (fallo leve)"),
    "serious": ("failed (serious failure)", "fallido (fallo grave)"),
    "search": ("Search", "Buscar"),
    "export-ndjson": ("Export NDJSON", "Exportar NDJSON"),
    "export-csv": ("Export CSV", "Exportar CSV"),
    "older": ("Older events", "Eventos anteriores"),
    "newest": ("Newest events", "Eventos más recientes"),
    "events": ("Events, newest first", "Eventos, el más reciente primero"),
    "none": ("No event answers this question.", "Ningún evento responde a esta consulta."),
    "recorded": ("Recorded (UTC)", "Registrado (UTC)"),
    "client": ("Client", "Cliente"),
    "user": ("User", "Usuario"),
    "who": ("Patient", "Paciente"),
    "what": ("About", "Sobre"),
    "details": ("Details", "Detalles"),
    "read": ("Read", "Leer"),
    "event": ("Audit event", "Evento de auditoría"),
    "back": ("Back to the trail", "Volver al registro"),
    "resource": ("As FHIR AuditEvent", "Como AuditEvent de FHIR"),
    "not-found": ("There is no event of that id.", "No hay ningún evento con ese identificador."),
    "unreadable": (
        "cannot be read any more: run “cds-server audit verify”",
        "ya no se puede leer: ejecute «cds-server audit verify»",
    ),
    "chain": ("Chain", "Cadena"),
    "chain-sealed": (
        "Newest signed checkpoint: {number}, made {made} UTC; everything recorded before it is sealed.",
        "Último punto de control firmado: {number}, hecho {made} UTC; todo lo registrado antes está sellado.",
    ),
    "chain-waiting": (
        "Newest signed checkpoint: {number}, made {made} UTC; {waiting} events were recorded since.",
        "Último punto de control firmado: {number}, hecho {made} UTC; desde entonces, {waiting} eventos.",
    ),
    "chain-none": (
        "No checkpoint was made yet; {waiting} events wait for the first.",
        "Aún no hay ningún punto de control; {waiting} eventos esperan el primero.",
    ),
    "chain-verify": (
        "Whether the trail is untouched is shown by “cds-server audit verify”, best with checkpoints kept "
        "elsewhere.",
        "Si el registro está intacto lo muestra «cds-server audit verify», mejor con puntos de control "
        "guardados en otro lugar.",
    ),
    "export-begun": ("The export begins …", "Comienza la exportación …"),
    "export-done": ("The export is complete.", "La exportación está completa."),
    "export-failed": ("The export failed; please try again.", "La exportación falló; inténtelo de nuevo."),
    "progress": ("Progress of the export", "Progreso de la exportación"),
    "fault": ("This cannot be searched for", "Esto no se puede buscar"),
}


def text(key: str, language: str) -> str:
    """The text of a key.  Raises: KeyError."""
    english, spanish = _TEXTS[key]
    return spanish if language == "es" else english
