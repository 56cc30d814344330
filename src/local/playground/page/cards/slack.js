// Block Kit: https://docs.slack.dev/reference/block-kit
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
  nameOf,
  oneOf,
  picture,
  preformatted,
  text,
  uniqueId,
  unknown,
} from './dom.js';

const ENTITIES = { '&lt;': '<', '&gt;': '>', '&amp;': '&' };
const unescaped = content => content.replace(/&(?:lt|gt|amp);/g, entity => ENTITIES[entity]);
const BROADCASTS = ['channel', 'here', 'everyone'];

/**
 * A message: `{blocks, text, attachments}`. Without blocks, Slack shows the text.
 *
 * @param {import('./dom.js').Actions} actions A click's value is `{action_id, value, block_id}`.
 */
export function render(body, actions) {
  return card('slack', body, () => {
    const blocks = list(body.blocks);
    const shown = blocks.length ? blocks.map(block => drawBlock(block, actions)) : mrkdwn(body.text, actions);
    return [shown, list(body.attachments).map(attachment => drawAttachment(attachment, actions))];
  });
}

/** The text alone, as in a notification. */
export function renderText(body, actions) {
  return card('slack', body, () => mrkdwn(body.text, actions));
}

/**
 * A modal, to be opened with `showModal()`. Its click's value is the `view` of a `view_submission`, without what Slack adds.
 *
 * @param {import('./dom.js').Actions} actions
 */
export function renderModal(answer, actions) {
  const view = answer?.view ?? answer;
  const title = uniqueId();
  const props = { tag: 'dialog', className: 'card-modal', 'aria-labelledby': title, close: () => actions?.close?.() };
  return card('slack', answer, dialog => drawModal(view, actions, { dialog, title }), props);
}

function drawModal(view, actions, { dialog, title }) {
  const inputs = [];
  const blocks = list(view.blocks).map(block => {
    if (block?.type !== 'input' || block.element?.type !== 'plain_text_input') return drawBlock(block, actions);
    const input = drawInput(block, actions);
    inputs.push(input);
    return [input.field.element, block.hint && h('p', { class: 'card-hint' }, text(block.hint.text))];
  });
  inputs[0]?.field.input.setAttribute('autofocus', '');
  const submit = () => {
    if (!areAccepted(inputs.map(input => input.field))) return;
    const values = {};
    for (const { block, field } of inputs) {
      values[block.block_id] = { [block.element.action_id]: { type: block.element.type, value: field.value || null } };
    }
    const { callback_id, private_metadata } = view;
    actions.click({
      label: text(view.submit?.text),
      value: { callback_id, private_metadata, state: { values } },
      reason: inputs[0]?.field.value ?? null,
    });
  };
  const close = () => dialog.close();
  const closeLabel = text(view.close?.text) || 'Close';
  return [
    h(
      'header',
      null,
      h('h3', { id: title }, text(view.title?.text)),
      h(
        'button',
        { type: 'button', class: 'card-x', 'aria-label': closeLabel, click: close },
        h('span', { 'aria-hidden': 'true' }, '✕'),
      ),
    ),
    h('div', { class: 'card-body' }, blocks),
    h(
      'footer',
      null,
      h('button', { type: 'button', class: 'card-button', 'data-key': 'button close', click: close }, closeLabel),
      view.submit && button(text(view.submit.text), actions, submit, { kind: 'primary' }),
    ),
  ];
}

/** Shows what `response_action: errors` says, at the fields. */
export function showErrors(modal, errors) {
  for (const [block, message] of Object.entries(errors ?? {})) {
    const field = modal.querySelector(`[data-block="${CSS.escape(block)}"]`);
    field?.dispatchEvent(new CustomEvent('card-error', { detail: text(message) }));
    field?.querySelector('input, textarea')?.focus();
  }
}

function drawInput(block, actions) {
  const { element } = block;
  const label = [text(block.label?.text), block.optional && h('span', { class: 'card-optional' }, ' (optional)')];
  const options = {
    name: text(block.block_id),
    label,
    placeholder: element.placeholder && text(element.placeholder.text),
    value: text(element.initial_value),
    multiline: element.multiline,
    rows: 3,
    maxLength: element.max_length,
    required: !block.optional,
  };
  const field = new Field(options, actions);
  // Slack itself marks what is optional, not what is required.
  field.element.querySelector('.card-required')?.remove();
  field.element.dataset.block = text(block.block_id);
  return { block, field };
}

function drawBlock(block, actions) {
  switch (block?.type) {
    case 'rich_text':
      return list(block.elements).map(part => richPart(part, actions));
    case 'section':
      return drawSection(block, actions);
    case 'header':
      return h('div', { class: 'card-line card-title', role: 'heading', 'aria-level': '4' }, text(block.text?.text));
    case 'context':
      return h(
        'div',
        { class: 'card-context' },
        list(block.elements).map(part =>
          part.type === 'image' ? picture(part.alt_text, part.image_url) : textObject(part, actions),
        ),
      );
    case 'divider':
      return h('hr');
    case 'image':
      return [
        block.title && h('div', { class: 'card-line' }, text(block.title.text)),
        picture(block.alt_text, block.image_url),
      ];
    case 'actions':
      return h(
        'div',
        { class: 'card-actions', role: 'group', 'aria-label': 'Actions' },
        list(block.elements).map(part => drawElement(part, block, actions)),
      );
    default:
      return unknown(block);
  }
}

function drawSection(block, actions) {
  return [
    block.text && textObject(block.text, actions),
    block.fields &&
      h(
        'div',
        { class: 'card-fields' },
        list(block.fields).map(field => h('div', null, textObject(field, actions))),
      ),
    block.accessory &&
      (block.accessory.type === 'image'
        ? picture(block.accessory.alt_text, block.accessory.image_url)
        : h('div', { class: 'card-actions' }, drawElement(block.accessory, block, actions))),
  ];
}

function drawElement(element, block, actions) {
  if (element?.type !== 'button') return unknown(element);
  const label = text(element.text?.text);
  if (element.url) return link(element.url, label, 'card-button');
  const { action_id, value } = element;
  const sent = { action_id, value, ...(block.block_id === undefined ? {} : { block_id: block.block_id }) };
  return button(label, actions, () => actions.click({ label, value: sent, reason: null }), {
    kind: oneOf(['primary', 'danger'], element.style),
    'aria-label': element.accessibility_label,
  });
}

function drawAttachment(attachment, actions) {
  const { blocks, text: content, fallback } = attachment;
  const shown = list(blocks).length
    ? list(blocks).map(block => drawBlock(block, actions))
    : content || fallback
      ? mrkdwn(content || fallback, actions)
      : unknown(attachment);
  return h('div', { class: 'card-attachment' }, shown);
}

// Rich text is literal: only its types make links and mentions.

function richPart(part, actions) {
  const inline = () => lines(list(part.elements).map(element => richInline(element, actions)));
  switch (part?.type) {
    case 'rich_text_section':
      return h('div', { class: 'card-section' }, inline());
    case 'rich_text_preformatted':
      return preformatted(list(part.elements).map(element => text(element.text ?? element.url)));
    case 'rich_text_quote':
      return h('blockquote', null, inline());
    case 'rich_text_list':
      return h(
        part.style === 'ordered' ? 'ol' : 'ul',
        null,
        list(part.elements).map(item => h('li', null, richPart(item, actions))),
      );
    default:
      return unknown(part);
  }
}

const STYLES = { bold: 'b', italic: 'i', strike: 's', code: 'code' };

function styled(style, node) {
  return Object.keys(STYLES).reduce((inner, name) => (style?.[name] ? h(STYLES[name], null, inner) : inner), node);
}

function richInline(element, actions) {
  const { style } = element ?? {};
  switch (element?.type) {
    case 'text':
      return { text: text(element.text), wrap: piece => styled(style, piece) };
    case 'link':
      return { node: styled(style, link(element.url, element.text || element.url)) };
    case 'user':
      return { node: mention(text(element.user_id), actions) };
    case 'usergroup':
      return { node: mention(text(element.usergroup_id), actions) };
    case 'channel':
      return {
        node: h('span', { class: 'card-mention' }, `#${nameOf(text(element.channel_id), actions)}`),
      };
    case 'broadcast':
      return { node: h('span', { class: 'card-mention card-loud' }, `@${text(element.range)}`) };
    case 'emoji':
      return { text: `:${text(element.name)}:` };
    default:
      return { node: unknown(element) };
  }
}

/** Of mrkdwn: bold, code, links and mentions. */
function mrkdwn(content, actions) {
  const parts = text(content)
    .split(/(<[^<>\n]+>|`[^`\n]+`|\*[^*\n]+\*)/)
    .filter(Boolean);
  return h('div', { class: 'card-section' }, lines(parts.map(part => mrkdwnPart(part, actions))));
}

function mrkdwnPart(part, actions) {
  const [first, inner] = [part[0], part.slice(1, -1)];
  if (part.length > 2 && first === '`') return { node: h('code', null, unescaped(inner)) };
  if (part.length > 2 && first === '*' && part.endsWith('*')) return { node: h('b', null, unescaped(inner)) };
  if (first !== '<' || !part.endsWith('>')) return { text: unescaped(part) };
  const [target, label] = inner.split('|');
  if (/^@[UW]/.test(target)) return { node: mention(target.slice(1), actions) };
  if (target.startsWith('!') && BROADCASTS.includes(target.slice(1)))
    return { node: h('span', { class: 'card-mention card-loud' }, `@${target.slice(1)}`) };
  return { node: link(unescaped(target), unescaped(label ?? target)) };
}

function textObject(object, actions) {
  if (object?.type === 'mrkdwn') return mrkdwn(object.text, actions);
  return object?.type === 'plain_text'
    ? h('div', { class: 'card-section' }, lines([{ text: text(object.text) }]))
    : unknown(object);
}
