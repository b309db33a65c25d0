/** Elements of the document. @module */

/**
 * Find an element by its id.
 * @template {Element} Kind
 * @param {string} id
 * @param {new () => Kind} kind
 * @returns {Kind}
 */
export function element(id, kind) {
  const found = document.getElementById(id);
  if (!(found instanceof kind)) throw new Error(`the page has no ${kind.name} #${id}`);
  return found;
}

/**
 * Create an element with text.
 * @param {string} tag
 * @param {string} [text]
 * @param {string} [className]
 * @returns {HTMLElement}
 */
export function make(tag, text = "", className = "") {
  const made = document.createElement(tag);
  made.textContent = text;
  if (className) made.className = className;
  return made;
}

/**
 * Fill a description list. Existing rows are updated in place.
 * @param {HTMLElement} list
 * @param {[string, string][]} facts
 */
export function fill(list, facts) {
  while (list.children.length > facts.length) list.lastElementChild?.remove();
  facts.forEach(([term, value], index) => {
    let row = list.children[index];
    if (row === undefined) {
      row = make("div");
      row.append(make("dt"), make("dd"));
      list.append(row);
    }
    if (row.children[0].textContent !== term) row.children[0].textContent = term;
    if (row.children[1].textContent !== value) row.children[1].textContent = value;
  });
}
