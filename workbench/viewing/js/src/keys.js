// Keys pressed in a view are the view's: without this, an arrow on a slider, Enter on a button or the letter d would go
// to the notebook's command mode. JupyterLab looks for the mark from the focused element on upwards, and one of its
// selectors names the focused element itself: so the mark must be on that, not only around it.
const focusable = "button,input,select,textarea,summary,a[href],[tabindex],[contenteditable]";

/** Mark what can be focused in `root`, now and later; returns what ends it. */
export function ownKeys(root) {
  const mark = () => {
    for (const node of [root, ...root.querySelectorAll(focusable)]) node.setAttribute("data-lm-suppress-shortcuts", "true");
  };
  const watched = new MutationObserver(mark);
  watched.observe(root, { childList: true, subtree: true });
  mark();
  return () => watched.disconnect();
}
