// A choice of one from a few, each with a line that explains it.

import { keepRows, make, setText, show } from "./dom.js";

/** Rows of radio buttons in a fieldset. */
export class RadioRows {
  /**
   * @param {Element} node The element for the rows.
   * @param {string} name The name of the group.
   * @param {function} choose Called with the id of what the user chose.
   */
  constructor(node, name, choose) {
    this.node = node;
    this.name = name;
    this.choose = choose;
  }

  /**
   * Show the choices.
   *
   * @param {Array} items The choices: {id, title, text, note}.
   * @param {string} chosen The id of the chosen one.
   * @param {function} isPossible Whether a choice can be made.
   */
  update(items, chosen, isPossible = () => true) {
    keepRows(this.node, items, (item) => item.id, (item) => this.#row(item));
    for (const radio of this.node.querySelectorAll("input")) {
      radio.checked = radio.value === chosen;
      radio.disabled = !isPossible(items.find((item) => item.id === radio.value));
    }
  }

  #row(first) {
    const radio = make("input", { type: "radio", name: this.name, value: first.id });
    radio.addEventListener("change", () => this.choose(first.id));
    const title = make("span", { class: "row-title" });
    const text = make("span", { class: "quiet" });
    const note = make("span", { class: "badge" });
    const node = make("label", { class: "radio-row" }, radio, make("span", { class: "row-words" }, make("span", {}, title, " ", note), text));
    const update = (item) => {
      setText(title, item.title);
      setText(text, item.text);
      show(text, Boolean(item.text));
      setText(note, item.note);
      show(note, Boolean(item.note));
    };
    return { node, update };
  }
}
