// Dialogs: a question, and the frame of the larger ones. The browser keeps the focus inside and closes them with Esc.

import { button, freshId, iconButton, make, setText } from "./dom.js";

/**
 * Make a dialog.
 *
 * @param {string} title Its heading.
 * @param {string} kind A class: "narrow" or "wide".
 * @returns {object} `node`, `body`, `foot`, `open()` and `close()`.
 */
export function makeDialog(title, kind) {
  const id = freshId("dialog");
  const heading = make("h2", { id, text: title });
  const body = make("div", { class: "dialog-body" });
  const foot = make("div", { class: "dialog-foot" });
  const close = () => node.close();
  const node = make(
    "dialog",
    { class: kind, "aria-labelledby": id },
    make("div", { class: "dialog-head" }, heading, iconButton("close", "Close", close)),
    body,
    foot,
  );
  node.addEventListener("click", (event) => event.target === node && isOutside(node, event) && close());
  document.body.append(node);
  return { node, body, foot, close, open: () => node.showModal(), rename: (text) => setText(heading, text) };
}

function isOutside(node, { clientX, clientY }) {
  const box = node.getBoundingClientRect();
  return clientX < box.left || clientX > box.right || clientY < box.top || clientY > box.bottom;
}

/**
 * Ask before something that cannot be undone.
 *
 * @param {object} question `title`, `sentences`, `yes` (what the button does) and `isDangerous`.
 * @returns {Promise<boolean>} Whether the user agreed.
 */
export function confirmed({ title, sentences, yes, isDangerous = false }) {
  const dialog = makeDialog(title, "narrow");
  dialog.body.append(...sentences.map((text) => make("p", { text })));
  return new Promise((resolve) => {
    let isAgreed = false;
    const agree = () => {
      isAgreed = true;
      dialog.close();
    };
    const cancel = button("Cancel", dialog.close, { autofocus: isDangerous });
    dialog.foot.append(cancel, button(yes, agree, { kind: isDangerous ? "danger" : "primary", autofocus: !isDangerous }));
    dialog.node.addEventListener("close", () => {
      dialog.node.remove();
      resolve(isAgreed);
    });
    dialog.open();
  });
}
