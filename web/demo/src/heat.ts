// The attention table.

import type { Alignment } from "pocket-t5";

/** Fills a table: output words down, input words across, a cell's colour its weight. */
export function draw(table: HTMLTableElement, hint: HTMLElement, { source, target, weights }: Alignment): void {
  const head = table.createTHead();
  const body = document.createElement("tbody");
  const caption = document.createElement("caption");
  caption.className = "unseen";
  caption.textContent = "Attention: output words down, input words across";
  const top = document.createElement("tr");
  const corner = document.createElement("td");
  corner.style.setProperty("--weight", "0");
  top.append(corner, ...source.map((word) => header(word, "col")));
  head.replaceChildren(top);
  const columns = [...top.querySelectorAll("th")];
  const most = Math.max(...weights.flat(), 1e-6);

  weights.forEach((row, i) => {
    const line = document.createElement("tr");
    const word = header(target[i] ?? "", "row");
    word.tabIndex = 0;
    line.append(word);
    row.forEach((weight, j) => {
      const cell = document.createElement("td");
      cell.style.setProperty("--weight", (weight / most).toFixed(3));
      const text = document.createElement("span");
      text.className = "unseen";
      text.textContent = `${Math.round(weight * 100)} %`;
      cell.append(text);
      cell.title = `${target[i]} ← ${source[j]}: ${Math.round(weight * 100)} %`;
      cell.addEventListener("pointerenter", () => light([word, columns[j]]));
      line.append(cell);
    });
    const strongest = row
      .map((weight, j) => ({ weight, j }))
      .sort((a, b) => b.weight - a.weight)
      .slice(0, 3);
    const show = (): void => {
      light([word, columns[strongest[0]?.j ?? -1]]);
      const list = strongest.map(({ weight, j }) => `${source[j]} (${Math.round(weight * 100)} %)`);
      hint.textContent = `“${target[i]}” comes from ${list.join(", ")}.`;
    };
    word.addEventListener("focus", show);
    word.addEventListener("pointerenter", show);
    body.append(line);
  });
  table.onpointerleave = () => light([]);
  table.replaceChildren(caption, head, body);

  function light(cells: (Element | undefined)[]): void {
    table.querySelectorAll(".lit").forEach((cell) => cell.classList.remove("lit"));
    cells.forEach((cell) => cell?.classList.add("lit"));
  }
}

function header(text: string, scope: "row" | "col"): HTMLTableCellElement {
  const cell = document.createElement("th");
  cell.scope = scope;
  const inner = document.createElement("span");
  inner.textContent = text;
  cell.append(inner);
  return cell;
}
