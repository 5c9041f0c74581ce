"use strict";
// Tells that something has changed; what to do about it is the operator's choice.
const seen = new Map([...document.querySelectorAll("section[data-etag]")].map((one) => [one.dataset.name, one.dataset]));
const note = document.getElementById("changed");
setInterval(async () => {
  try {
    const answer = await fetch(document.body.dataset.api, { headers: { Accept: "application/json" } });
    if (!answer.ok) return;
    const now = await answer.json();
    note.hidden = !now.some(({ name, etag, mode }) => {
      const before = seen.get(name);
      return before === undefined || before.etag !== etag || before.mode !== mode;
    });
  } catch {
    // The service is away for a moment; the page stays as it is.
  }
}, 3000);
