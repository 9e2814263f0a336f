"""A server runs the ensemble with numpy alone: what trained it is never imported."""

import json
import subprocess
import sys
from pathlib import Path

from ensemble_helpers import tiny_run_bundle

ROOT = Path(__file__).parents[2]
SERVE = """
import json, sys
from datetime import UTC, datetime
from pathlib import Path

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from fhir_adapters.chart_builder import ChartBuilder
from fhir_adapters.decode import read_bundle
from models.bundle import load_bundle
from models.engine import Engine

builder = ChartBuilder.load()
key = Ed25519PrivateKey.from_private_bytes(bytes(range(32))).public_key()
bundle = load_bundle(Path(sys.argv[1]), [key], ontology=builder.tables.ontology.version)
engine = Engine.load(builder.tables.ontology, None, bundle)
patient = {"resourceType": "Patient", "id": "p", "birthDate": "1980-02-03", "gender": "female"}
code = {"coding": [{"system": "http://human-phenotype-ontology.org", "code": "HP:0012735"}]}
cough = {"resourceType": "Condition", "id": "c", "subject": {"reference": "Patient/p"}, "code": code}
sent = {"resourceType": "Bundle", "type": "collection", "entry": [{"resource": r} for r in (patient, cough)]}
read = read_bundle(json.dumps(sent).encode())
chart = builder.build(read, at=datetime(2026, 6, 1, tzinfo=UTC), patient_id="p")
found = engine.assess(chart)
heavy = ("torch", "xgboost", "sklearn", "scipy", "pandas", "polars", "mlflow", "optuna", "crepes", "training")
loaded = sorted({name.partition(".")[0] for name in sys.modules})
print(json.dumps({
    "diseases": len(found.common),
    "explained": len(found.explanation),
    "model": found.model,
    "heavy": [name for name in loaded if name in heavy],
}))
"""


def test_serving_imports_nothing_that_training_needs(tmp_path: Path) -> None:
    bundle = tiny_run_bundle(tmp_path / "bundle")
    done = subprocess.run(
        [sys.executable, "-c", SERVE, str(tmp_path / "bundle")],
        check=True,
        capture_output=True,
        text=True,
        cwd=ROOT,
    )
    found = json.loads(done.stdout)
    assert found["heavy"] == []
    assert found["model"] == bundle.id
    assert found["diseases"] >= 15 and found["explained"] > 0
