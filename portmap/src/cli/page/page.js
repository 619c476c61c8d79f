// Keeps the page up to date. Without this script the page shows the state at its loading, and its links work.
"use strict";

const list = document.getElementById("services");
const summary = document.getElementById("summary");
const dialog = document.getElementById("explanation");

/** Puts the Services in order: new and changed ones by their HTML, the others as they are. */
function showServices({ services, text }) {
  const before = new Map([...list.children].map((item) => [item.id, item]));
  const focused = document.activeElement?.closest?.("[data-port]")?.dataset.port;
  const items = services.map(({ id, html }) => {
    if (html === null && before.has(id)) return before.get(id);
    const template = document.createElement("template");
    template.innerHTML = html ?? "";
    return template.content.firstElementChild;
  });
  list.replaceChildren(...items.filter(Boolean));
  if (summary.textContent !== text) summary.textContent = text;
  if (focused) list.querySelector(`[data-port="${CSS.escape(focused)}"] a`)?.focus({ preventScroll: true });
}

/** Shows the rates of each Service port. A port without a rate has no connections. */
function showRates(rates) {
  for (const port of list.querySelectorAll("[data-port]")) {
    const rate = rates[port.dataset.port];
    port.classList.toggle("flowing", Boolean(rate?.flows));
    port.classList.toggle("refusing", Boolean(rate?.fails));
    const text = rate?.text ?? "";
    const line = port.querySelector(".rate");
    if (line.textContent !== text) line.textContent = text;
  }
}

/** Shows an explanation beside the page. */
async function explain(link) {
  const answer = await fetch(`${link.href}&part=1`);
  dialog.querySelector("div").innerHTML = await answer.text();
  dialog.showModal();
}

list.addEventListener("click", (event) => {
  const link = event.target.closest("a.explain");
  if (!link || event.ctrlKey || event.metaKey || event.shiftKey) return;
  event.preventDefault();
  explain(link).catch(() => { location.href = link.href; });
});

const events = new EventSource(`/events${location.search}`);
events.addEventListener("services", (event) => showServices(JSON.parse(event.data)));
events.addEventListener("rates", (event) => showRates(JSON.parse(event.data)));
events.addEventListener("error", () => { summary.textContent = "portmap page has ended; waiting for it to start again"; });
