"use strict";
// The page's only script; its hash stands in the page's policy. Without it the tables are there, not
// sortable, and packed parts stay packed.

const missing = "–";

function sortKey(cell, kind) {
  const text = (cell.dataset.v ?? cell.textContent).trim();
  if (kind !== "number") return text;
  const value = text === "" || text === missing ? NaN : parseFloat(text.replace("−", "-"));
  return Number.isNaN(value) ? null : value; // null stays last, whichever way is up
}

const inOrder = new Intl.Collator("en", { numeric: true }).compare;

function sortTable(table, column, descending) {
  const kind = table.tHead.rows[0].cells[column].dataset.sort;
  const body = table.tBodies[0];
  const rows = [...body.rows].map((row) => [sortKey(row.cells[column], kind), row]);
  rows.sort(([a], [b]) => {
    if (a === null || b === null) return (a === null) - (b === null);
    const order = kind === "number" ? a - b : inOrder(a, b);
    return descending ? -order : order;
  });
  body.append(...rows.map(([, row]) => row));
  for (const head of table.tHead.rows[0].cells) head.removeAttribute("aria-sort");
  table.tHead.rows[0].cells[column].setAttribute("aria-sort", descending ? "descending" : "ascending");
}

function makeSortable(within) {
  for (const table of within.querySelectorAll("table.sortable")) {
    [...table.tHead.rows[0].cells].forEach((head, column) => {
      const button = document.createElement("button");
      button.type = "button";
      button.append(...head.childNodes);
      head.append(button);
      button.addEventListener("click", () =>
        sortTable(table, column, head.getAttribute("aria-sort") === "ascending"));
    });
  }
}

async function unpack(details) {
  const packed = details.querySelector("script[type='application/gzip']");
  if (!packed) return;
  const bytes = Uint8Array.from(atob(packed.textContent), (letter) => letter.charCodeAt(0));
  packed.remove(); // so that a second call finds nothing to do
  const stream = new Blob([bytes]).stream().pipeThrough(new DecompressionStream("gzip"));
  const part = document.createElement("div");
  part.innerHTML = await new Response(stream).text();
  makeSortable(part);
  details.append(part);
  details.dataset.ready = "";
}

// A link may lead into a part that is still packed: #well-PLATE/A01 is in #plate-PLATE.
async function openTarget() {
  const id = decodeURIComponent(location.hash.slice(1));
  const plate = id.slice(id.indexOf("-") + 1).split("/")[0];
  const details = document.getElementById(`plate-${plate}`);
  if (!details || details.dataset.ready === "") return;
  await unpack(details);
  details.open = true;
  if (document.getElementById(id)) location.replace(location.href); // now there is what it leads to
}

makeSortable(document);
for (const details of document.querySelectorAll("details.packed"))
  details.addEventListener("toggle", () => details.open && unpack(details));
addEventListener("hashchange", openTarget);
if (location.hash) openTarget();
