// Shows how far an export has come. Without this script the same buttons download the same file.
"use strict";
const form = document.querySelector("form.filter");
const area = document.getElementById("export-progress");
if (form && area && window.fetch && window.ReadableStream) {
  const bar = area.querySelector("progress");
  const text = area.querySelector("output");
  form.addEventListener("submit", async (event) => {
    const button = event.submitter;
    if (!button || !button.dataset.export) return;
    event.preventDefault();
    const fields = new URLSearchParams(new FormData(form, button));
    area.hidden = false;
    button.disabled = true;
    text.value = area.dataset.begun;
    try {
      const answer = await fetch(button.formAction, { method: "POST", body: fields });
      if (!answer.ok) throw new Error(String(answer.status));
      const total = Number(answer.headers.get("x-total-count"));
      bar.max = Math.max(total, 1);
      bar.value = 0;
      const parts = [];
      let lines = 0;
      const reader = answer.body.getReader();
      for (;;) {
        const { done, value } = await reader.read();
        if (done) break;
        parts.push(value);
        for (const byte of value) if (byte === 10) lines += 1;
        bar.value = Math.min(lines, total);
        text.value = `${Math.min(lines, total)} / ${total}`;
      }
      const link = document.createElement("a");
      link.href = URL.createObjectURL(new Blob(parts));
      link.download = button.dataset.export;
      link.click();
      URL.revokeObjectURL(link.href);
      bar.value = bar.max;
      text.value = area.dataset.done;
    } catch (fault) {
      text.value = area.dataset.failed;
    } finally {
      button.disabled = false;
    }
  });
}
