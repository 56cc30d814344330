// The template of a card shows variables: docs/dingtalk-template.json says which, and what a click sends.
import { Field, areAccepted, button, card, h, link, oneOf, text, textLines, unknown } from './dom.js';

const BODY_VARIABLES = 16;
const MAX_REASON_CHARS = 400;
const BUTTONS = [
  { id: 'approve', label: 'Approve', kind: 'primary', takesReason: true },
  { id: 'reject', label: 'Reject', kind: 'danger', takesReason: true },
  { id: 'withdraw', label: 'Withdraw my approval', kind: '', takesReason: false },
  { id: 'acknowledge', label: 'Acknowledge', kind: 'primary', takesReason: false },
  { id: 'details', label: 'Details', kind: '', takesReason: false },
];
const OTHERS = ['title', 'tone', 'can_reason', 'reason_label', 'has_link', 'link_label', 'link_url', 'notice'];
const KNOWN = new Set([
  ...OTHERS,
  ...Array.from({ length: BODY_VARIABLES }, (_, index) => `body_${index + 1}`),
  ...BUTTONS.flatMap(({ id }) => [`can_${id}`, `${id}_binding`]),
]);

/** The variables in what peergate sends: with those of one person, if there are any. */
function variablesOf(body) {
  const map = body?.cardParamMap ?? body?.cardData?.cardParamMap;
  const own = body?.userPrivateData?.cardParamMap ?? body?.privateData?.cardParamMap;
  return map || own ? { ...map, ...own } : null;
}

/**
 * A card: `{cardParamMap}`, and `userPrivateData` as in a response to a click.
 *
 * @param {import('./dom.js').Actions} actions A click's value is the `cardPrivateData` of its content: `{actionIds, params}`.
 */
export function render(body, actions) {
  const isCard = variablesOf(body) && (body.cardParamMap || body.cardData);
  if (!isCard && (body?.text || body?.msgParam || body?.userPrivateData)) return renderText(body);
  return card('dingtalk', body, element => {
    const variables = variablesOf(body);
    if (!variables) return unknown(body);
    const get = name => (Object.hasOwn(variables, name) ? text(variables[name]) : '');
    element.dataset.tone = oneOf(['red', 'orange', 'blue'], get('tone'), 'blue');
    return [
      h('header', null, h('div', { class: 'card-line card-title', role: 'heading', 'aria-level': '4' }, get('title'))),
      h('div', { class: 'card-body' }, drawBody(variables, get, actions)),
    ];
  });
}

/** A text message, or the notice of a response. */
export function renderText(body) {
  const notice = body?.userPrivateData?.cardParamMap?.notice;
  const props = { className: notice === undefined ? 'card-text' : 'card-text card-notice', role: 'status' };
  return card(
    'dingtalk',
    body,
    () => {
      const message = typeof body.msgParam === 'string' ? JSON.parse(body.msgParam) : body.text;
      const content = message?.content ?? notice;
      return content ? textLines(content) : unknown(body);
    },
    props,
  );
}

function drawBody(variables, get, actions) {
  const texts = Array.from({ length: BODY_VARIABLES }, (_, index) => get(`body_${index + 1}`)).filter(Boolean);
  const others = Object.entries(variables).filter(([name]) => !KNOWN.has(name));
  const field =
    get('can_reason') === 'yes'
      ? new Field({ name: 'reason', label: get('reason_label'), multiline: true, maxLength: MAX_REASON_CHARS }, actions)
      : null;
  const shown = BUTTONS.filter(({ id }) => get(`can_${id}`) === 'yes');
  const buttons = shown.map(own => drawButton(own, { binding: get(`${own.id}_binding`), field, actions }));
  if (get('has_link') === 'yes') buttons.push(link(get('link_url'), get('link_label'), 'card-button card-text'));
  return [
    texts.map(content => h('div', { class: 'card-section' }, textLines(content))),
    others.length > 0 && unknown(Object.fromEntries(others)),
    field?.element,
    buttons.length > 0 && h('div', { class: 'card-actions', role: 'group', 'aria-label': 'Actions' }, buttons),
    get('notice') && h('div', { class: 'card-notice', role: 'status' }, textLines(get('notice'))),
  ];
}

function drawButton({ id, label, kind, takesReason }, { binding, field, actions }) {
  const asked = takesReason ? field : null;
  const send = () => {
    if (asked && !areAccepted([asked])) return;
    const params = { binding, ...(asked ? { reason: asked.value } : {}) };
    actions.click({ label, value: { actionIds: [id], params }, reason: asked?.value ?? null });
  };
  return button(label, actions, send, { kind });
}
