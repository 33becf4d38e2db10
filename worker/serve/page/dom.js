// Elements without HTML strings: text only ever becomes a text node, whoever wrote it.

const SVG = "http://www.w3.org/2000/svg";

/** An element; `props` are properties, `on…` listeners, `class`, or attributes with a dash or unknown names. */
export function h(tag, props = {}, ...children) {
  const node = document.createElement(tag);
  for (const [name, value] of Object.entries(props)) {
    if (value === null || value === undefined) continue;
    if (name.startsWith("on")) node.addEventListener(name.slice(2), value);
    else if (name === "class") node.className = value;
    else if (name in node && !name.includes("-")) node[name] = value;
    else node.setAttribute(name, value);
  }
  node.append(...children.flat().filter((child) => child !== null && child !== undefined));
  return node;
}

/** An SVG element of attributes. */
export function svg(tag, attributes = {}, ...children) {
  const node = document.createElementNS(SVG, tag);
  for (const [name, value] of Object.entries(attributes)) node.setAttribute(name, value);
  node.append(...children);
  return node;
}

/** Put children in place of what is there. */
export function fill(node, ...children) {
  node.replaceChildren(...children.flat().filter((child) => child !== null && child !== undefined));
}

/** The same, but those that stay are not touched: an element that is put back has lost focus and clicks. */
export function renew(node, children) {
  const staying = new Set(children);
  for (const child of [...node.children]) if (!staying.has(child)) child.remove();
  children.forEach((child, n) => { if (node.children[n] !== child) node.insertBefore(child, node.children[n] ?? null); });
}
