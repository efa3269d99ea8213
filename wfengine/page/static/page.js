// Live updates, keys, and copying: everything else works without this file.
(() => {
  "use strict";
  const root = document.body.dataset.root || "";
  const button = document.getElementById("live-switch");
  // After an update that took so long, the page rests so many times as long: who watches costs little, however large the run.
  const REST = 5, LONGEST = 15000;
  let source = null, live = true, waiting = false, asked = 0, rested = 0, timer = null;

  const changed = () => {
    if (document.hidden || !live) { waiting = true; return; }
    const early = rested - performance.now();
    if (early > 0) { // one more update, and only one, comes when it has rested
      if (timer === null) timer = setTimeout(() => { timer = null; changed(); }, Math.min(early, 250));
      return;
    }
    const at = document.activeElement;
    // What somebody ticks, chooses or types is not taken from under their hands.
    if (at && at.closest && at.closest("[hx-get],#live-head") && at.matches("input,select,textarea")) { waiting = true; return; }
    if (document.querySelector("[hx-get] input:checked,#live-head input:checked")) { waiting = true; return; }
    waiting = false;
    document.body.dispatchEvent(new Event("changed"));
  };
  document.addEventListener("htmx:beforeSend", () => { asked = performance.now(); rested = asked + LONGEST; });
  document.addEventListener("htmx:afterRequest", () => {
    const now = performance.now();
    rested = now + Math.min(REST * (now - asked), LONGEST);
  });
  const connect = () => {
    if (source || !live || !document.querySelector("[hx-get]")) return;
    source = new EventSource(`${root}/events?seen=${document.body.dataset.seen || ""}`);
    source.addEventListener("changed", changed);
  };
  const disconnect = () => { if (source) { source.close(); source = null; } };
  const setLive = (on) => {
    live = on;
    button.setAttribute("aria-pressed", String(on));
    if (on) { connect(); changed(); } else { disconnect(); }
  };
  button.hidden = false;
  button.addEventListener("click", () => setLive(!live));
  document.addEventListener("visibilitychange", () => { if (!document.hidden && waiting) changed(); });
  window.addEventListener("pagehide", disconnect);
  connect();

  const lines = document.querySelector("[data-stream]");
  if (lines) {
    const stream = new EventSource(lines.dataset.stream);
    stream.addEventListener("log", (event) => {
      const line = JSON.parse(event.data), row = document.createElement("tr");
      const level = { 10: "DEBUG", 20: "INFO", 30: "WARNING", 40: "ERROR", 50: "CRITICAL" }[line.level] || String(line.level);
      row.className = "l-" + level.toLowerCase();
      const cells = [[line.at.slice(0, 19).replace("T", " ") + "Z", "n"], [level, ""], [line.task || "", ""], [line.message, "c wide"]];
      for (const [text, kind] of cells) {
        const cell = document.createElement("td");
        cell.textContent = text; // never as markup
        cell.className = kind;
        row.append(cell);
      }
      lines.append(row);
      while (lines.rows.length > 5000) lines.rows[0].remove();
      if (window.innerHeight + window.scrollY > document.body.scrollHeight - 200) window.scrollTo(0, document.body.scrollHeight);
    });
    window.addEventListener("pagehide", () => stream.close());
  }

  document.addEventListener("click", (event) => {
    const command = event.target.closest && event.target.closest("[data-copy]");
    if (!command || !navigator.clipboard) return;
    navigator.clipboard.writeText(command.dataset.copy).then(() => {
      command.classList.add("copied");
      setTimeout(() => command.classList.remove("copied"), 1200);
    }).catch(() => {});
  });
  document.addEventListener("keydown", (event) => {
    const at = event.target;
    if (event.key === "Enter" && (event.ctrlKey || event.metaKey) && at.matches("textarea") && at.form) { at.form.requestSubmit(); return; }
    if (at.matches("input,select,textarea") || event.ctrlKey || event.metaKey || event.altKey) return;
    if (event.key === "p") { setLive(!live); return; }
    const target = document.querySelector(`[data-key="${CSS.escape(event.key)}"]`);
    if (!target) return;
    event.preventDefault();
    if (target.matches("input")) target.focus(); else target.click();
  });
})();
