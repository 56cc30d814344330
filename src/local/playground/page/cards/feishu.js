// Card JSON 2.0: https://open.feishu.cn/document/feishu-cards/card-json-v2-structure
import {
  Field,
  areAccepted,
  button,
  card,
  h,
  lines,
  link,
  list,
  mention,
  oneOf,
  picture,
  preformatted,
  text,
  textLines,
  unknown,
} from './dom.js';

const TEMPLATES = [
  'blue',
  'wathet',
  'turquoise',
  'green',
  'yellow',
  'orange',
  'red',
  'carmine',
  'violet',
  'purple',
  'indigo',
  'grey',
  'default',
];
const TOASTS = { info: 'ℹ', success: '✓', warning: '⚠', error: '✗' };

/** The card in what peergate sends: a message, a message to a custom bot, a response to a click, or the card itself. */
function cardOf(body) {
  if (typeof body?.content === 'string') return JSON.parse(body.content);
  return body?.card?.data ?? body?.card ?? body;
}

/**
 * A card.
 *
 * @param {import('./dom.js').Actions} actions A click's value is the `action` of `card.action.trigger`: `{value, name}`, and
 *   `form_value` if the button submits a form.
 */
export function render(body, actions) {
  return card('feishu', body, element => {
    const { header, body: content } = cardOf(body);
    element.dataset.template = oneOf(TEMPLATES, header?.template, 'default');
    if (!content) return unknown(body);
    return [
      header && drawHeader(header),
      h(
        'div',
        { class: 'card-body' },
        list(content.elements).map(part => drawElement(part, actions, null)),
      ),
    ];
  });
}

/** A toast: `{type, content}`, or the response that has one. */
export function renderText(body) {
  const toast = body?.toast ?? body;
  const kind = oneOf(Object.keys(TOASTS), toast?.type, 'info');
  const props = { className: 'card-toast', 'data-kind': kind, role: 'status' };
  return card(
    'feishu',
    body,
    () => [
      h('span', { class: 'card-mark', role: 'img', 'aria-label': kind }, TOASTS[kind]),
      h('div', null, textLines(toast.content)),
    ],
    props,
  );
}

function drawHeader({ title, subtitle, text_tag_list: tags }) {
  return h(
    'header',
    null,
    h('div', { class: 'card-line card-title', role: 'heading', 'aria-level': '4' }, text(title?.content)),
    list(tags).map(tag => h('span', { class: 'card-tag' }, text(tag.text?.content))),
    subtitle && h('div', { class: 'card-line card-subtitle' }, text(subtitle.content)),
  );
}

/** `form` has the fields of the form that the element is in. */
function drawElement(element, actions, form) {
  const inside = (parts, fields = form) => list(parts).map(part => drawElement(part, actions, fields));
  switch (element?.tag) {
    case 'div':
      return element.text || element.fields
        ? [
            element.text && drawText(element.text, actions),
            list(element.fields).map(field => drawText(field.text, actions)),
          ]
        : unknown(element);
    case 'markdown':
      return markdown(element.content, actions);
    case 'hr':
      return h('hr');
    case 'img':
      return picture(element.alt?.content, '');
    case 'column_set':
      return h('div', { class: 'card-columns' }, inside(element.columns));
    case 'column':
      return h(
        'div',
        { class: element.width === 'weighted' ? 'card-column card-wide' : 'card-column' },
        inside(element.elements),
      );
    case 'button':
      return drawButton(element, actions, form);
    case 'form':
      return h('div', { class: 'card-form', role: 'group', 'aria-label': 'Form' }, inside(element.elements, []));
    case 'input':
      return drawInput(element, actions, form);
    default:
      return unknown(element);
  }
}

function drawText(object, actions) {
  if (object?.tag === 'lark_md') return markdown(object.content, actions);
  return object?.tag === 'plain_text'
    ? h('div', { class: 'card-section' }, textLines(object.content))
    : unknown(object);
}

/** Of Markdown: code blocks and mentions, which is all that peergate writes. */
function markdown(content, actions) {
  const blocks = text(content)
    .split(/^(```[^\n]*\n[\s\S]*?\n```)$/m)
    .filter(block => block.trim());
  return blocks.map(block => {
    if (block.startsWith('```')) return preformatted(block.split('\n').slice(1, -1).join('\n'));
    const parts = block.split(/(<at id=[\w-]+><\/at>)/).filter(Boolean);
    return h('div', { class: 'card-section' }, lines(parts.map(part => markdownPart(part, actions))));
  });
}

function markdownPart(part, actions) {
  const [, id] = part.match(/^<at id=([\w-]+)><\/at>$/) ?? [];
  if (!id) return { text: part };
  return { node: id === 'all' ? h('span', { class: 'card-mention card-loud' }, '@all') : mention(id, actions) };
}

const KINDS = {
  primary: 'primary',
  primary_filled: 'primary',
  danger: 'danger',
  danger_filled: 'danger',
  text: 'text',
};

function drawButton(element, actions, form) {
  const label = text(element.text?.content);
  const behaviors = list(element.behaviors);
  const opened = behaviors.find(behavior => behavior.type === 'open_url');
  const called = behaviors.find(behavior => behavior.type === 'callback');
  const kind = Object.hasOwn(KINDS, text(element.type)) ? KINDS[element.type] : '';
  if (opened && !called) return link(opened.default_url, label, `card-button card-${kind || 'plain'}`);
  const isReset = element.form_action_type === 'reset';
  const isSubmit = element.form_action_type === 'submit' && form;
  if (!called && !isReset && !isSubmit) return unknown(element);
  const send = () => {
    if (isReset) form?.forEach(field => (field.input.value = ''));
    if (isReset || (isSubmit && !areAccepted(form))) return;
    const value = { value: called?.value, ...(element.name === undefined ? {} : { name: element.name }) };
    if (isSubmit) value.form_value = Object.fromEntries(form.map(field => [field.name, field.value]));
    actions.click({ label, value, reason: isSubmit ? (form[0]?.value ?? null) : null });
  };
  return button(label, actions, send, { kind });
}

function drawInput(element, actions, form) {
  const options = {
    name: text(element.name),
    label: text(element.label?.content) || text(element.name),
    placeholder: element.placeholder && text(element.placeholder.content),
    value: text(element.default_value),
    multiline: element.input_type === 'multiline_text',
    rows: element.rows,
    maxLength: element.max_length,
    required: element.required,
  };
  const field = new Field(options, actions);
  form?.push(field);
  return field.element;
}
