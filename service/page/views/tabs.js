/** Tabs after the ARIA Authoring Practices: arrow keys move between them and select. @module */

/**
 * @param {HTMLElement} list
 * @param {(name: string) => void} onChoice with what follows "tab-" in the tab's id
 */
export function tabs(list, onChoice) {
  const all = [...list.querySelectorAll("button")];
  const choose = (/** @type {HTMLButtonElement} */ chosen) => {
    for (const tab of all) {
      tab.setAttribute("aria-selected", String(tab === chosen));
      tab.tabIndex = tab === chosen ? 0 : -1;
      const panel = document.getElementById(tab.getAttribute("aria-controls") ?? "");
      if (panel) panel.hidden = tab !== chosen;
    }
    onChoice(chosen.id.replace("tab-", ""));
  };
  const moves = new Map([
    ["ArrowRight", (/** @type {number} */ index) => (index + 1) % all.length],
    ["ArrowLeft", (/** @type {number} */ index) => (index + all.length - 1) % all.length],
    ["Home", () => 0],
    ["End", () => all.length - 1],
  ]);
  all.forEach((tab, index) => {
    tab.addEventListener("click", () => choose(tab));
    tab.addEventListener("keydown", (event) => {
      const move = moves.get(event.key);
      if (move === undefined) return;
      event.preventDefault();
      const next = all[move(index)];
      next.focus();
      choose(next);
    });
  });
}
