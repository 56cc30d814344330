// Adaptive Cards 1.5: https://learn.microsoft.com/en-us/microsoftteams/platform/task-modules-and-cards/cards/cards-format
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
  uniqueId,
  unknown,
} from './dom.js';

/** The card in what peergate sends: an activity, its attachment, or the card itself. */
const cardOf = body => body?.attachments?.[0]?.content ?? body?.content ?? body;

/**
 * A card.
 *
 * @param {import('./dom.js').Actions} actions A click's value is `{verb, data}`; `data` has the inputs, too.
 */
export function render(body, actions) {
  if (!body?.attachments && (typeof body?.text === 'string' || typeof body?.value === 'string')) return renderText(body);
  return card('teams', body, () => {
    const content = cardOf(body);
    if (content?.type !== 'AdaptiveCard') return unknown(body);
    return drawCard(content, { actions, entities: list(content.msteams?.entities), inputs: [] });
  });
}

/** What only the person who clicked sees: the response to a click, or a message of text. */
export function renderText(body) {
  const props = { className: 'card-toast', role: 'status' };
  const content = typeof body?.value === 'object' ? text(body.value?.message) : text(body?.value ?? body?.text);
  return card('teams', body, () => (content ? textLines(content) : unknown(body)), props);
}

/** `inputs` are those that a click sends: of the card, and of those that it is in. */
function drawCard(content, context) {
  const own = { ...context, inputs: [...context.inputs] };
  const body = list(content.body).map(part => drawElement(part, own));
  return [
    h('div', { class: 'card-body' }, body),
    list(content.actions).length > 0 && drawActions(content.actions, own),
  ];
}

function drawElement(element, context) {
  const inside = parts => list(parts).map(part => drawElement(part, context));
  const spaced = className =>
    `${className} card-space-${oneOf(['None', 'Small', 'Medium', 'Large', 'ExtraLarge', 'Padding'], element.spacing, 'Default')}`;
  switch (element?.type) {
    case 'TextBlock':
      return h('div', { class: spaced(`card-block ${look(element)}`) }, lines(withMentions(element.text, context)));
    case 'RichTextBlock':
      return h('div', { class: spaced('card-block') }, lines(list(element.inlines).map(drawInline)));
    case 'CodeBlock':
      return preformatted(text(element.codeSnippet));
    case 'FactSet':
      return h(
        'dl',
        { class: spaced('card-facts') },
        list(element.facts).map(fact => [h('dt', null, text(fact.title)), h('dd', null, textLines(fact.value))]),
      );
    case 'Container': {
      const style = oneOf(['emphasis', 'accent', 'good', 'warning', 'attention'], element.style, 'default');
      return h(
        'div',
        { class: spaced(`card-container card-${style}${element.bleed ? ' card-bleed' : ''}`) },
        inside(element.items),
      );
    }
    case 'ColumnSet':
      return h(
        'div',
        { class: spaced('card-columns') },
        list(element.columns).map(column =>
          h('div', { class: column.width === 'auto' ? 'card-column' : 'card-column card-wide' }, inside(column.items)),
        ),
      );
    case 'ActionSet':
      return drawActions(element.actions, context);
    case 'Image':
      return picture(element.altText, element.url);
    case 'Input.Text': {
      const options = {
        name: text(element.id),
        label: text(element.label) || text(element.id),
        placeholder: element.placeholder,
        value: text(element.value),
        multiline: element.isMultiline,
        maxLength: element.maxLength,
        required: element.isRequired,
        error: text(element.errorMessage),
      };
      const field = new Field(options, context.actions);
      context.inputs.push(field);
      return field.element;
    }
    default:
      return unknown(element);
  }
}

const look = ({ weight, size, color, isSubtle, fontType, italic, strikethrough }) =>
  [
    weight === 'Bolder' && 'card-bold',
    oneOf(['Medium', 'Large', 'ExtraLarge'], size) && `card-size-${size}`,
    oneOf(['Accent', 'Good', 'Warning', 'Attention'], color) && `card-color-${color}`,
    isSubtle && 'card-subtle',
    fontType === 'Monospace' && 'card-mono',
    italic && 'card-italic',
    strikethrough && 'card-strike',
  ]
    .filter(Boolean)
    .join(' ');

function drawInline(run) {
  if (typeof run === 'string') return { text: run };
  if (run?.type !== 'TextRun') return { node: unknown(run) };
  if (run.selectAction?.type === 'Action.OpenUrl') return { node: link(run.selectAction.url, run.text) };
  const className = look(run);
  return { text: text(run.text), wrap: piece => (className ? h('span', { class: className }, piece) : piece) };
}

/** Only the marks of `msteams.entities` are mentions. Markdown is not interpreted: peergate writes none. */
function withMentions(content, { actions, entities }) {
  const parts = [{ text: text(content) }];
  for (const { text: mark, mentioned } of entities.filter(entity => entity?.type === 'mention' && entity.text)) {
    const at = parts.findIndex(part => part.text?.includes(mark));
    if (at < 0) continue;
    const position = parts[at].text.indexOf(mark);
    const [before, after] = [parts[at].text.slice(0, position), parts[at].text.slice(position + mark.length)];
    const id = text(mentioned?.id);
    const node = mention(Object.hasOwn(actions?.names ?? {}, id) ? id : text(mentioned?.name), actions);
    parts.splice(at, 1, { text: before }, { node }, { text: after });
  }
  return parts.filter(part => part.node || part.text);
}

/** The row of buttons, and below it what they open: one at a time. */
function drawActions(all, context) {
  const panels = [];
  const row = list(all).map(action => drawAction(action, context, panels));
  return [
    h('div', { class: 'card-actions', role: 'group', 'aria-label': 'Actions' }, row),
    panels.map(({ panel }) => panel),
  ];
}

function drawAction(action, context, panels) {
  const label = text(action?.title);
  const kind = action?.style === 'positive' ? 'primary' : action?.style === 'destructive' ? 'danger' : '';
  switch (action?.type) {
    case 'Action.Execute':
    case 'Action.Submit':
      return button(label, context.actions, () => send(action, context), { kind });
    case 'Action.ShowCard':
      return drawShowCard(action, { label, kind, context, panels });
    case 'Action.OpenUrl':
      return link(action.url, label, 'card-button');
    default:
      return unknown(action);
  }
}

function send(action, { actions, inputs }) {
  const used = action.associatedInputs === 'none' ? [] : inputs;
  if (!areAccepted(used)) return;
  const data = { ...action.data };
  // An input that is not filled in is not sent.
  for (const field of used) if (field.value) data[field.name] = field.value;
  const value = action.type === 'Action.Execute' ? { verb: action.verb, data } : { data };
  actions.click({ label: text(action.title), value, reason: used[0]?.value ?? null });
}

function drawShowCard(action, { label, kind, context, panels }) {
  const id = uniqueId();
  const panel = h('div', { id, class: 'card-show', role: 'group', 'aria-label': label, hidden: true });
  panel.append(
    ...drawCard(action.card ?? {}, context)
      .flat(Infinity)
      .filter(Boolean),
  );
  const show = isOpen => {
    panel.hidden = !isOpen;
    toggle.setAttribute('aria-expanded', String(isOpen));
  };
  const toggle = button(
    label,
    context.actions,
    () => {
      const opens = panel.hidden;
      panels.forEach(other => other.show(false));
      show(opens);
      if (opens) panel.querySelector('input, textarea, button')?.focus();
    },
    {
      kind: kind ? `${kind} card-toggle` : 'toggle',
      'aria-expanded': 'false',
      'aria-controls': id,
      'data-key': `open ${label}`,
    },
  );
  panel.addEventListener('keydown', event => {
    if (event.key !== 'Escape') return;
    event.stopPropagation();
    show(false);
    toggle.focus();
  });
  toggle.addEventListener('card-open', () => show(true));
  panels.push({ panel, show });
  return toggle;
}
