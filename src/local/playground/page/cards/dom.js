// What the cards of all platforms are made of. Everything from a body becomes a text node, never markup or a style.

/**
 * How a card tells what a person does.
 *
 * @typedef {object} Actions
 * @property {(click: {label: string, value: object, reason: string | null}) => void} click `value` is what the platform
 *   sends of the button; `reason` is what is in the field, and null if there is none.
 * @property {() => void} [close] A dialog was closed.
 * @property {boolean} [enabled] False disables the buttons.
 * @property {boolean} [skipChecks] Sends what the platform's client would not, e.g. without a required reason.
 * @property {Record<string, string>} [names] Names of people by the platform's id, for mentions.
 */

/** An element. A child is a node, a text, or a list of these; null, false and '' are left out. */
export function h(tag, props, ...children) {
  const element = document.createElement(tag);
  for (const [name, value] of Object.entries(props ?? {})) {
    if (typeof value === 'function') element.addEventListener(name, value);
    else if (value !== null && value !== undefined && value !== false)
      element.setAttribute(name, value === true ? '' : value);
  }
  for (const child of children.flat(Infinity)) {
    if (child instanceof Node) element.append(child);
    else if (child !== null && child !== undefined && child !== false && child !== '') element.append(text(child));
  }
  return element;
}

let lastId = 0;
/** An id that no other element has. */
export function uniqueId() {
  lastId += 1;
  return `card-part-${lastId}`;
}

/** A list, whatever a body has in its place. */
export const list = value => (Array.isArray(value) ? value : []);

/** A text, whatever a body has in its place. */
export const text = value =>
  value === null || value === undefined ? '' : typeof value === 'object' ? JSON.stringify(value) : String(value);

/** The word if it is one of these, for classes. */
export const oneOf = (words, word, otherwise = '') => (words.includes(word) ? word : otherwise);

/** A part that this page cannot draw, as its JSON. */
export function unknown(part) {
  const json = JSON.stringify(part, null, 2) ?? String(part);
  return h(
    'pre',
    { class: 'card-unknown', tabindex: '0', role: 'group', 'aria-label': 'A part that is not drawn, as JSON' },
    json,
  );
}

/** Text whose columns are aligned. It scrolls by itself, so it takes the focus. */
export const preformatted = (...children) =>
  h('pre', { class: 'card-pre', tabindex: '0', role: 'group', 'aria-label': 'Preformatted text' }, ...children);

/**
 * Lines, each in its own element, from nodes and texts. A newline begins the next line.
 *
 * @param {{text?: string, node?: Node, wrap?: (text: string) => Node}[]} parts
 */
export function lines(parts) {
  const rows = [[]];
  for (const part of parts) {
    if (part.node) {
      rows.at(-1).push(part.node);
      continue;
    }
    part.text.split('\n').forEach((piece, position) => {
      if (position) rows.push([]);
      if (piece) rows.at(-1).push(part.wrap ? part.wrap(piece) : piece);
    });
  }
  if (!rows[0].length) rows.shift(); // A block begins on a new line anyway.
  return rows.map(row => h('div', { class: 'card-line' }, row));
}

export const textLines = content => lines([{ text: text(content) }]);

/** The name of a person or a channel, or else the id. */
export const nameOf = (id, actions) => text(Object.hasOwn(actions?.names ?? {}, id) ? actions.names[id] : id);

/** A mention. It is not a link: nothing here leads to a person. */
export const mention = (id, actions) => h('span', { class: 'card-mention' }, `@${nameOf(id, actions)}`);

/** A link if it leads to a web page; otherwise its text. */
export function link(url, label, className = 'card-link') {
  let target = null;
  try {
    target = new URL(url);
  } catch {
    // It is no address.
  }
  const isWeb = target?.protocol === 'https:' || target?.protocol === 'http:';
  if (!isWeb) return h('span', { class: 'card-nolink' }, text(label), ` (${text(url)})`);
  return h(
    'a',
    {
      class: className,
      href: target.href,
      target: '_blank',
      rel: 'noopener noreferrer',
      'data-key': `link ${text(label)}`,
    },
    text(label) || target.href,
  );
}

/** A picture is not fetched: its description is shown. */
export const picture = (description, url) =>
  h('div', { class: 'card-line card-picture' }, 'Picture: ', link(url, text(description) || 'without a description'));

/** A button. Without somebody who takes clicks, it is disabled. */
export function button(label, actions, run, { kind = '', ...more } = {}) {
  return h(
    'button',
    {
      type: 'button',
      class: kind ? `card-button card-${kind}` : 'card-button',
      disabled: actions?.enabled === false || !actions?.click,
      'data-key': `button ${label}`,
      click: run,
      ...more,
    },
    label,
  );
}

/** A field with its label, and the place of its error. */
export class Field {
  constructor({ name, label, placeholder, value, multiline, rows, maxLength, required, error }, actions) {
    const id = uniqueId();
    this.name = name;
    this.required = Boolean(required);
    this.message = error || 'Fill in this field.';
    this.actions = actions;
    this.input = h(multiline ? 'textarea' : 'input', {
      id,
      type: multiline ? null : 'text',
      rows: multiline ? Math.min(rows || 2, 8) : null,
      name,
      placeholder,
      maxlength: actions?.skipChecks || !maxLength ? null : maxLength,
      'aria-required': this.required ? 'true' : null,
      'aria-describedby': `${id}-error`,
      autocomplete: 'off',
      'data-key': `field ${name}`,
      input: () => this.showError(''),
    });
    if (value) this.input.value = value;
    this.error = h('p', { id: `${id}-error`, class: 'card-error', role: 'alert' });
    const mark = this.required && h('span', { class: 'card-required', 'aria-hidden': 'true' }, ' *');
    this.element = h('div', { class: 'card-field' }, h('label', { for: id }, label, mark), this.input, this.error);
    this.element.addEventListener('card-error', event => this.showError(event.detail));
  }

  get value() {
    return this.input.value;
  }

  showError(message) {
    this.error.replaceChildren(message ? `⚠ ${message}` : '');
    if (message) this.input.setAttribute('aria-invalid', 'true');
    else this.input.removeAttribute('aria-invalid');
  }

  /** As the platform's client checks before it sends. */
  isAccepted() {
    if (!this.required || this.actions?.skipChecks || this.value.trim()) return true;
    this.showError(this.message);
    return false;
  }
}

/** Whether all fields are filled in as required. The first that is not gets the focus. */
export function areAccepted(fields) {
  const refused = fields.filter(field => !field.isAccepted());
  refused[0]?.input.focus();
  return !refused.length;
}

/** The card of a platform. A body that is not understood shows as its JSON. */
export function card(platform, body, draw, { tag = 'div', className = '', ...props } = {}) {
  const element = h(tag, { class: `card card-${platform}${className && ` ${className}`}`, ...props });
  try {
    element.append(...[draw(element)].flat(Infinity).filter(Boolean));
  } catch {
    element.replaceChildren(unknown(body));
  }
  return element;
}

/**
 * Takes over what a person has begun: what is in the fields, which parts are open, and the focus. Call it when `to` is in
 * the page in place of `from`, with the `data-key` that had the focus before.
 */
export function carryOver(from, to, focusedKey = null) {
  const find = (root, key) => root.querySelector(`[data-key="${CSS.escape(key)}"]`);
  for (const field of from.querySelectorAll('[data-key^="field "]')) {
    const now = find(to, field.dataset.key);
    if (!now || now.value) continue;
    now.value = field.value;
    now.setSelectionRange(field.selectionStart, field.selectionEnd);
  }
  for (const opened of from.querySelectorAll('[data-key][aria-expanded="true"]')) {
    find(to, opened.dataset.key)?.dispatchEvent(new Event('card-open'));
  }
  if (focusedKey) find(to, focusedKey)?.focus();
}

/** Marks the lines that the version before did not have. */
export function markNew(now, before) {
  const old = new Set([...before.querySelectorAll('.card-line')].map(line => line.textContent));
  for (const line of now.querySelectorAll('.card-line')) line.classList.toggle('is-new', !old.has(line.textContent));
}
