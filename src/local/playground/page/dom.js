// Small parts that all panes use. Everything from the server becomes a text node.
import { h } from './cards/dom.js';

export { h };
export const $ = id => document.getElementById(id);

const SVG = 'http://www.w3.org/2000/svg';
export function icon(name) {
  const svg = document.createElementNS(SVG, 'svg');
  const use = document.createElementNS(SVG, 'use');
  svg.setAttribute('aria-hidden', 'true');
  use.setAttribute('href', `#i-${name}`);
  svg.append(use);
  return svg;
}

const FACES = ['alice', 'bob', 'carol', 'erin', 'mallory', 'app'];
export function face(name) {
  const known = FACES.includes(name) ? name : 'mallory';
  return h('span', { class: `face ${known}`, 'aria-hidden': 'true' }, name === 'app' ? icon('gate') : name[0].toUpperCase());
}

export const button = (label, run, { small = true, kind = '', mark, ...more } = {}) =>
  h(
    'button',
    { type: 'button', class: `btn ${small ? 'small' : ''} ${kind}`, 'data-key': `button ${label}`, click: run, ...more },
    mark && icon(mark),
    h('span', null, label),
  );

const PAUSE_MS = 150;
let said = [];
/** Says something to screen readers, together with what else is said at this moment. */
export function announce(text) {
  if (!said.length) {
    setTimeout(() => {
      $('announce').textContent = said.join(' ');
      said = [];
    }, PAUSE_MS);
  }
  said.push(text);
}

/** Shows what went wrong until the next thing works. */
export function showProblem(text) {
  $('problem').hidden = !text;
  $('problem-text').textContent = text ?? '';
}

export async function copyText(text, what) {
  try {
    await navigator.clipboard.writeText(text);
    announce(`${what} copied`);
  } catch {
    const area = h('textarea', { class: 'sr' });
    area.value = text;
    document.body.append(area);
    area.select();
    document.execCommand('copy');
    area.remove();
    announce(`${what} copied`);
  }
  document.body.dataset.copied = text;
}

// What is shown as nothing, or changes the direction of the text after it.
const INVISIBLE = /[\p{Cf}\p{Cc}\p{Zl}\p{Zp}\p{Co}\p{Cn}]/gu;
/** A text in which every character can be seen. Line breaks stay. */
export const visible = text => text.replace(INVISIBLE, c => (c === '\n' ? c : `\\u{${c.codePointAt(0).toString(16)}}`));

/** Shows a text. What did not change stays, with what is selected in it. */
export function showText(id, text) {
  if ($(id).textContent !== text) $(id).textContent = text;
}

/** How each part looked when it was drawn. What a person opens or types in it later is no difference. */
const looks = new WeakMap();
const lookOf = node => (node.outerHTML ?? node.textContent).replaceAll(/card-part-\d+/g, 'card-part');

function remember(node) {
  looks.set(node, lookOf(node));
  for (const part of node.querySelectorAll?.('[data-part]') ?? []) looks.set(part, lookOf(part));
}

/** Puts nodes in place of the children. A part that looks as before stays, so a click or a selection in it is not lost. */
function replaceChanged(container, nodes) {
  const parts = new Map([...container.children].map(part => [part.dataset.part, part]));
  let next = container.firstChild;
  const skipTo = node => {
    while (next !== node) {
      const outdated = next;
      next = next.nextSibling;
      outdated.remove();
    }
  };
  for (const node of nodes) {
    const name = node.dataset?.part;
    const before = name ? parts.get(name) : next?.dataset?.part ? null : next;
    const stays = before?.parentNode === container;
    if (stays && looks.get(before) === lookOf(node)) {
      skipTo(before);
      next = before.nextSibling;
    } else if (stays && name && node.querySelector(':scope > [data-part]')) {
      skipTo(before);
      next = before.nextSibling;
      for (const { name: attribute, value } of [...node.attributes]) before.setAttribute(attribute, value);
      looks.set(before, lookOf(node));
      replaceChanged(before, [...node.childNodes]);
    } else {
      if (stays) skipTo(before);
      remember(node);
      container.insertBefore(node, next);
      if (stays) skipTo(before.nextSibling);
    }
  }
  skipTo(null);
}

/** Redraws what changed of a part. What had the focus gets it again, and what was open stays open, if it is still there. */
export function redraw(container, draw) {
  const had = container.contains(document.activeElement) ? document.activeElement : null;
  const place = had && placeOf(had);
  const tops = new Map([...container.querySelectorAll('[data-scroll]')].map(it => [it.dataset.scroll, it.scrollTop]));
  const open = new Set([...container.querySelectorAll('details[open] > summary[data-key]')].map(it => it.dataset.key));
  replaceChanged(container, [draw()].flat(Infinity).filter(Boolean));
  for (const part of container.querySelectorAll('[data-scroll]')) {
    const top = tops.get(part.dataset.scroll) ?? part.scrollTop;
    if (part.scrollTop !== top) part.scrollTop = top;
  }
  for (const summary of container.querySelectorAll('details > summary[data-key]')) {
    if (open.has(summary.dataset.key)) summary.parentElement.open = true;
  }
  if (!had || had === document.activeElement) return;
  focusAgain(container, place);
}

/** Where an element is, in words that hold after a redraw. */
export const placeOf = element => ({
  key: element.closest('[data-key]')?.dataset.key,
  part: element.closest('[data-part]')?.dataset.part,
});

/** Focuses the same button; if it is gone, the answer; else the whole part. */
export function focusAgain(container, { key, part }) {
  const find = (root, name, value) => value && root.querySelector(`[data-${name}="${CSS.escape(value)}"]`);
  const same = find(find(container, 'part', part) || container, 'key', key);
  const next = same && !same.disabled ? same : (container.querySelector('[data-rest]') ?? container.querySelector('[tabindex="0"]'));
  next?.focus({ preventScroll: true });
}

/** Tabs: the arrows move between them. */
export function tabs(id, entries, chosen, choose, panel) {
  return entries.map(({ key, name, count, unit }) =>
    h(
      'button',
      {
        type: 'button',
        role: 'tab',
        id: `tab-${key}`,
        'data-key': `tab ${key}`,
        'aria-selected': String(key === chosen),
        tabindex: key === chosen ? '0' : '-1',
        'aria-controls': panel,
        click: () => choose(key),
      },
      name,
      count ? h('span', { class: 'count' }, ' ', String(count), h('span', { class: 'sr' }, ` ${count === 1 ? unit[0] : unit[1]}`)) : null,
    ),
  );
}

// A string without its end is a part, too: if it were looked for again and again, a long text would take minutes.
const PARTS =
  /(#[^\n]*)|(‹redacted›)|("(?:[^"\\\n]|\\.)*"?)(\s*:)?|(^[A-Za-z_][\w.-]*(?=\s*=)|^\[.*\]|^[a-z][\w-]*(?=: ))|(\b\d+\b)/gm;
/** Nodes of JSON, headers or TOML, with the colors that help a reader. */
export function painted(text, isToml = false) {
  const nodes = [];
  let from = 0;
  for (const match of text.matchAll(PARTS)) {
    const [all, comment, redacted, string, colon, key] = match;
    nodes.push(text.slice(from, match.index));
    from = match.index + all.length;
    if (comment && !isToml) nodes.push(all);
    else if (redacted || string?.includes('‹redacted›')) nodes.push(h('span', { class: 'r', title: 'Redacted, as in the logs.' }, 'redacted'), colon ?? '');
    else if (string) nodes.push(h('span', { class: colon ? 'k' : 's' }, string), colon ?? '');
    else nodes.push(h('span', { class: comment ? 'c' : key ? 'k' : 'n' }, all));
  }
  nodes.push(text.slice(from));
  return nodes;
}

export const code = (text, label) =>
  h('pre', { class: 'code', tabindex: '0', role: 'group', 'aria-label': label }, painted(text));

export function pretty(text) {
  try {
    return JSON.stringify(JSON.parse(text), null, 2);
  } catch {
    return text;
  }
}

export const clockTime = at => new Date(at).toISOString().slice(11, 19);
export const minuteTime = at => new Date(at).toISOString().slice(0, 16).replace('T', ' ');
export function span(ms) {
  const minutes = Math.floor(ms / 60e3);
  if (minutes < 1) return `${Math.max(0, Math.floor(ms / 1000))} s`;
  if (minutes < 60) return `${minutes} min`;
  const [big, small] = minutes < 48 * 60 ? [60, 1] : [1440, 60];
  const [unit, smaller] = minutes < 48 * 60 ? ['h', 'min'] : ['d', 'h'];
  const rest = Math.floor((minutes % big) / small);
  return `${Math.floor(minutes / big)} ${unit}${rest ? ` ${rest} ${smaller}` : ''}`;
}
