"use strict";
// Each table: a click on a column's title sorts; words and conditions such as "snip sparsity>=90" filter.
for (const section of document.querySelectorAll(".data")) {
  const body = section.querySelector("tbody"), heads = [...section.querySelectorAll("thead tr:last-child th")];
  const names = heads.map((head) => head.dataset.name);
  const input = section.querySelector("input"), output = section.querySelector("output"), all = section.querySelector(".all");
  let rows = [...body.rows], most = SHOWN;
  const cell = (row, place) => row.cells[place].textContent;
  const order = new Intl.Collator("en", { numeric: true }).compare;

  const operators = {
    "=": (a, b) => a === b, "!=": (a, b) => a !== b,
    ">": (a, b) => a > b, "<": (a, b) => a < b, ">=": (a, b) => a >= b, "<=": (a, b) => a <= b,
  };
  const condition = (term) => {
    const [, name, operator, wanted] = term.match(/^([a-z_]+)(>=|<=|!=|=|>|<)(.+)$/) ?? [];
    const place = names.indexOf(name);
    if (place < 0) return (row) => row.textContent.toLowerCase().includes(term);
    const numeric = "number" in heads[place].dataset;
    const value = numeric ? parseFloat : (text) => text.toLowerCase();
    return (row) => operators[operator](value(cell(row, place)), value(wanted));
  };

  const show = () => {
    if (!input) return; // a short table has no filter
    const conditions = input.value.toLowerCase().split(/\s+/).filter(Boolean).map(condition);
    let matching = 0;
    for (const row of rows) row.hidden = !conditions.every((holds) => holds(row)) || ++matching > most;
    output.value = `${matching === rows.length ? "" : `${matching} of `}${rows.length} rows`;
    all.hidden = matching <= most;
    all.textContent = `Show all ${matching}`;
  };

  const sort = (head, place) => {
    const sign = head.ariaSort === "ascending" ? -1 : 1;
    heads.forEach((other) => (other.ariaSort = "none"));
    head.ariaSort = sign > 0 ? "ascending" : "descending";
    const numeric = "number" in head.dataset;
    const keys = new Map(rows.map((row) => [row, numeric ? parseFloat(cell(row, place)) : cell(row, place)]));
    rows.sort((one, other) => {
      const [a, b] = [keys.get(one), keys.get(other)];
      // Rows without a number come last in both directions.
      return numeric ? Number.isNaN(a) - Number.isNaN(b) || sign * (a - b) || 0 : sign * order(a, b);
    });
    body.append(...rows);
    show();
  };
  // Not <button>: browsers do not repeat buttons in the heads of printed tables.
  heads.forEach((head, place) => {
    head.firstChild.addEventListener("click", () => sort(head, place));
    head.firstChild.addEventListener("keydown", (event) => {
      if (event.key !== "Enter" && event.key !== " ") return;
      event.preventDefault();
      sort(head, place);
    });
  });
  input?.addEventListener("input", show);
  all?.addEventListener("click", () => { most = Infinity; show(); });
  show();
  body.parentElement.classList.remove("long"); // which hides rows while the page loads
}
// A link into a closed part, and printing, open it.
const open = () => document.getElementById(location.hash.slice(1))?.closest("details")?.setAttribute("open", "");
addEventListener("hashchange", open);
open();
addEventListener("beforeprint", () => document.querySelectorAll("details").forEach((part) => (part.open = true)));
