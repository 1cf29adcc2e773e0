"use strict";
// Without this script every table is there; it only filters and sorts.
const form = document.getElementById("filters");
const count = document.getElementById("count");
const tables = [...document.querySelectorAll("table.numbers")];

// Whether an element's own data say that the filters leave it out.
const excluded = (element, chosen) =>
  Object.entries(chosen).some(([name, value]) =>
    value && element.dataset[name] !== undefined && element.dataset[name] !== value);

const filter = () => {
  const chosen = Object.fromEntries(new FormData(form));
  for (const element of document.querySelectorAll(
    "section[data-suite], .part, .trend, .chart, tr[data-system]")) {
    element.hidden = excluded(element, chosen);
  }
  for (const table of tables) {
    const gone = [...table.tHead.rows[0].cells].map((head) => excluded(head, chosen));
    for (const row of [...table.tHead.rows, ...table.tBodies[0].rows]) {
      [...row.cells].forEach((cell, column) => { cell.hidden = gone[column]; });
    }
  }
  const rows = [...document.querySelectorAll("section[data-suite] tbody tr")];
  const shown = rows.filter((row) => !row.hidden && !row.closest("section").hidden);
  count.textContent = `${shown.length} of ${rows.length} rows`;
};
form.addEventListener("change", filter);
form.addEventListener("reset", (event) => {
  event.preventDefault();
  for (const select of form.querySelectorAll("select")) select.value = "";
  filter();
});
form.addEventListener("submit", (event) => event.preventDefault());
form.hidden = false;
filter();

// A table is sorted by a column: descending, ascending, as it was. What has no number is last.
for (const table of document.querySelectorAll("section[data-suite] table.board")) {
  const body = table.tBodies[0];
  const given = [...body.rows];
  const heads = [...table.tHead.rows[0].cells];
  heads.forEach((head, column) => {
    const button = document.createElement("button");
    button.type = "button";
    button.append(...head.childNodes);
    head.append(button);
    const numeric = given.some((row) => row.cells[column].dataset.value !== undefined);
    const key = (row) => {
      const cell = row.cells[column];
      if (!numeric) return cell.textContent.trim();
      return cell.dataset.value === undefined ? null : Number(cell.dataset.value);
    };
    button.addEventListener("click", () => {
      const next = { null: "descending", descending: "ascending", ascending: null };
      const wanted = next[head.getAttribute("aria-sort")];
      for (const other of heads) other.removeAttribute("aria-sort");
      if (wanted) head.setAttribute("aria-sort", wanted);
      const sign = wanted === "descending" ? -1 : 1;
      const rows = [...given];
      if (wanted) {
        rows.sort((a, b) => {
          const [x, y] = [key(a), key(b)];
          if (x === null || y === null) return (x === null) - (y === null);
          return sign * (typeof x === "string" ? x.localeCompare(y) : x - y);
        });
      }
      body.append(...rows);
    });
  });
}
