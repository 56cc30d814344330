// The middle: the channel as each platform shows it, and who clicks.
import * as dingtalk from './cards/dingtalk.js';
import { carryOver, markNew, text } from './cards/dom.js';
import * as feishu from './cards/feishu.js';
import * as slack from './cards/slack.js';
import * as teams from './cards/teams.js';
import { $, announce, clockTime, code, face, focusAgain, h, icon, placeOf, pretty, redraw, tabs, visible } from './dom.js';

/** What draws the cards of a platform, by the name that the server gives. A new platform is one entry. */
const RENDERERS = { slack, feishu, teams, dingtalk };
const AUDIT = 'audit';

/** Cards as they were drawn: by platform and id, with their number of edits. */
const drawn = new Map();
let lastShown = '';
let tabShown = '';

export function createChat(app) {
  const { ui } = app;
  const platform = () => app.state?.platforms.find(it => it.name === ui.platform) ?? app.state?.platforms[0];
  const person = () => app.state?.people.find(it => it.name === ui.person);

  function names() {
    const entries = app.state.people.flatMap(it => it.ids.map(([, id]) => [id, it.name]));
    return Object.fromEntries(entries);
  }

  function choosePlatform(key) {
    ui.platform = key;
    draw();
  }

  function drawTabs() {
    const entries = app.state.platforms.map(it => ({ key: it.name, name: it.title, count: it.messages.length + it.escalations.length, unit: ['message', 'messages'] }));
    entries.push({ key: AUDIT, name: 'Audit', count: app.state.audit.length, unit: ['event', 'events'] });
    redraw($('platforms'), () => tabs('platforms', entries, ui.platform, choosePlatform, 'room'));
    if (ui.platform !== tabShown) {
      tabShown = ui.platform;
      $(`tab-${tabShown}`).scrollIntoView({ block: 'nearest', inline: 'nearest' });
    }
    redraw($('views'), () => [
      h('legend', { class: 'sr' }, 'Show'),
      [
        ['card', 'Card'],
        ['body', 'Body'],
      ].map(([key, name]) =>
        h(
          'label',
          null,
          h('input', {
            type: 'radio',
            name: 'view',
            value: key,
            checked: ui.view === key,
            'data-key': `view ${key}`,
            change: () => {
              ui.view = key;
              draw();
            },
          }),
          h('span', null, name),
        ),
      ),
    ]);
  }

  function drawPeople() {
    redraw($('persons'), () => [
      h('legend', { class: 'sr' }, 'Click as'),
      h('span', { class: 'legend', 'aria-hidden': 'true' }, 'Click as'),
      app.state.people.map(({ name, title, note, ids }) =>
        h(
          'label',
          { title: ids.map(([where, id]) => `${where}: ${id}`).join(', ') },
          h('input', {
            type: 'radio',
            name: 'person',
            value: name,
            checked: ui.person === name,
            'data-key': `person ${name}`,
            'aria-label': `${title}, ${note}`,
            change: () => choosePerson(name),
          }),
          h('span', { class: 'persona' }, face(name), h('b', { class: 'one-line' }, title), h('small', { class: 'one-line' }, note)),
        ),
      ),
    ]);
  }

  function choosePerson(name, says = true) {
    ui.person = name;
    draw();
    if (says) announce(`You click as ${person()?.title ?? name}`);
  }

  function actionsOf(app_name, message) {
    return {
      names: names(),
      click: ({ label, reason }) =>
        app.busy || app.act({ do: 'click', by: ui.person, app: app_name, button: label, message, ...(reason ? { reason } : {}) }),
    };
  }

  function renderBody(where, body, actions) {
    if (ui.view === 'body') return code(pretty(JSON.stringify(body)), 'The body, as it was sent');
    const renderer = RENDERERS[where.renderer];
    if (!renderer) return code(pretty(JSON.stringify(body)), 'The body, as it was sent');
    if (body?.toast) return renderer.renderText({ toast: { type: 'info', content: body.toast } }, actions);
    return renderer.render(body, actions);
  }

  function drawMessage(where, message) {
    const key = `${where.name} ${message.id}`;
    const before = drawn.get(key);
    const element = renderBody(where, message.body, actionsOf(where.name, message.id));
    if (ui.view === 'card') {
      if (before && before.edits !== message.edits) markNew(element, before.element);
      else if (before) for (const [i, line] of [...before.element.querySelectorAll('.card-line')].entries()) element.querySelectorAll('.card-line')[i]?.classList.toggle('is-new', line.classList.contains('is-new'));
      drawn.set(key, { edits: message.edits, element, older: before?.element });
    }
    return h(
      'article',
      { class: 'message', 'data-part': `message ${message.id}`, 'data-message': message.id, 'aria-label': `peergate in ${where.channel}${message.edits ? ', edited' : ''}`, 'data-edits': String(message.edits) },
      face('app'),
      h(
        'div',
        null,
        h(
          'p',
          { class: 'by' },
          h('b', null, 'peergate'),
          h('span', { class: 'tag-app' }, 'APP'),
          message.edits > 0 && h('span', { class: 'edited' }, '(edited)'),
        ),
        element,
      ),
    );
  }

  function drawThread(where, message) {
    if (!message.replies.length) return null;
    const count = `${message.replies.length} ${message.replies.length === 1 ? 'reply' : 'replies'} in the thread`;
    return h(
      'section',
      { class: 'thread', 'aria-label': count, 'data-part': `thread ${message.id}` },
      h('h3', null, count),
      h(
        'ol',
        null,
        message.replies.map(reply =>
          h(
            'li',
            null,
            face('app'),
            h('div', null, reply.broadcast && h('p', { class: 'also' }, 'also sent to the channel'), renderBody(where, reply.body, { enabled: false, names: names() })),
          ),
        ),
      ),
    );
  }

  function drawPrivate(where) {
    const mine = where.private.filter(it => it.to === ui.person);
    const others = where.private.length - mine.length;
    const last = mine.at(-1);
    return [
      others > 0 &&
        h('p', { class: 'elsewhere' }, `${others} private ${others === 1 ? 'answer is' : 'answers are'} hidden: only the reader sees ${others === 1 ? 'it' : 'them'}.`),
      last &&
        h(
          'section',
          { class: 'private', 'data-part': `private ${last.id}`, 'aria-label': `Only ${person().title} sees this`, 'data-private': last.id },
          h('header', null, icon('eye'), h('span', { class: 'grow' }, `Only ${person().title} sees this`), h('time', null, clockTime(last.at))),
          h('div', { class: 'body', tabindex: '0', role: 'group', 'aria-label': 'The answer', 'data-rest': true }, renderBody(where, last.body, actionsOf(where.name, last.id))),
        ),
    ];
  }

  function drawAudit() {
    if (!app.state.audit.length) return empty('No event yet', 'A program that audits gets a signed event of everything that happens.');
    return h(
      'div',
      { class: 'scroll', tabindex: '0', role: 'group', 'aria-label': 'Events', 'data-scroll': 'audit' },
      app.state.audit.map((event, i) =>
        h('details', { class: 'event' }, h('summary', { 'data-key': `event ${i}` }, h('code', null, text(event?.type) || 'event'), h('span', { class: 'muted small one-line grow' }, text(event?.data?.summary))), code(JSON.stringify(event, null, 2), 'The event')),
      ),
    );
  }

  function empty(title, text) {
    return h('div', { class: 'empty' }, icon('chat'), h('h3', null, title), h('p', null, text));
  }

  /** A step of a scenario, with every value of its action: somebody else may have made it. */
  function drawStep({ title, why, action }, i) {
    const values = Object.entries(action).map(([name, value]) => [h('dt', null, name), h('dd', null, visible(text(value)) || 'empty')]);
    return h(
      'li',
      null,
      h('i', null, String(i + 1)),
      h(
        'div',
        null,
        h('p', null, h('b', null, visible(title)), '. ', visible(why)),
        h('details', null, h('summary', { 'data-key': `step ${i}`, 'aria-label': `What step ${i + 1} does` }, 'What it does'), h('dl', null, values)),
      ),
    );
  }

  function drawEmpty() {
    const scenario = app.state.scenario;
    if (scenario) {
      return h(
        'div',
        { class: 'scroll', tabindex: '0', role: 'group', 'aria-label': 'The steps of the scenario', 'data-scroll': 'outline' },
        h(
          'div',
          { class: 'outline' },
          h('h3', null, scenario.title),
          h('p', { class: 'muted' }, `${scenario.about} Nothing runs yet: press Play or Step.`),
          h('ol', { class: 'outline' }, scenario.steps.map(drawStep)),
        ),
      );
    }
    return h(
      'div',
      { class: 'empty' },
      icon('chat'),
      h('h3', null, 'No request yet'),
      h('p', null, 'The channel of the rule gets a card for each request.'),
      h('ol', null, ['Send request', 'Approve as Alice', 'Approve as Bob'].map((text, i) => h('li', null, h('i', null, String(i + 1)), text))),
    );
  }

  const isUnfound = () => app.state.current && !app.state.record && !(app.state.scenario && app.state.watcher.running);

  function drawUnfound() {
    const { running } = app.state.watcher;
    return empty('No card yet', running ? 'The watcher finds the request at its next tick.' : 'The watcher is killed, so it has not found the request yet. Start the watcher.');
  }

  function drawRoom() {
    const room = $('room');
    room.setAttribute('aria-labelledby', `tab-${ui.platform}`);
    if (ui.platform === AUDIT) return redraw(room, drawAudit);
    const where = platform();
    if (!where.messages.length) return redraw(room, () => [isUnfound() ? drawUnfound() : drawEmpty(), drawPrivate(where)]);
    const before = new Map([...room.querySelectorAll('[data-message]')].map(it => [it.dataset.message, it]));
    const focused = document.activeElement;
    redraw(room, () => [
      h(
        'div',
        { class: 'stage', 'data-part': `stage ${where.name}` },
        h(
          'div',
          { class: 'scroll', tabindex: '0', role: 'group', 'aria-label': `Messages in ${where.channel}`, 'data-part': 'messages', 'data-scroll': `room ${where.name}` },
          where.messages.map(message => [drawMessage(where, message), drawThread(where, message)]),
          where.escalations.length > 0 && h('h3', { class: 'day' }, 'also in ', h('b', null, '#oncall')),
          where.escalations.map(message => [drawMessage({ ...where, channel: '#oncall' }, message), drawThread(where, message)]),
        ),
      ),
      drawPrivate(where),
    ]);
    for (const message of room.querySelectorAll('[data-message]')) {
      const old = before.get(message.dataset.message);
      // A card that was edited starts over, as in the platforms' clients.
      if (old && old !== message && old.dataset.edits === message.dataset.edits) {
        carryOver(old, message, old.contains(focused) ? focused.closest('[data-key]')?.dataset.key : null);
      }
    }
    const newest = `${where.name} ${(where.escalations.at(-1) ?? where.messages.at(-1)).id}`;
    if (newest !== lastShown) {
      lastShown = newest;
      const cards = room.querySelectorAll('article.message');
      cards[cards.length - 1]?.scrollIntoView({ block: 'start' });
    }
    return null;
  }

  let modal = null;

  function closeModal() {
    modal?.close();
  }

  /** Opens the modal of a platform over the chat. The rest of the page stays usable. */
  function openModal(view, by, where, { takesFocus = true } = {}) {
    const renderer = RENDERERS[where];
    if (!renderer?.renderModal) return;
    closeModal();
    const focused = document.activeElement;
    const place = placeOf(focused);
    const opened = renderer.renderModal(view, {
      enabled: true,
      names: names(),
      click: async ({ reason }) => {
        opened.close();
        await app.act({ do: 'answer_modal', by, reason: reason ?? '' });
      },
      close: () => {
        opened.remove();
        if (document.activeElement === document.body) focusAgain($('room'), place);
      },
    });
    opened.addEventListener('keydown', event => event.key === 'Escape' && opened.close());
    opened.classList.add('in-chat');
    $('chat').append(opened);
    opened.show();
    if (!takesFocus) {
      document.activeElement.blur();
      focused?.focus();
    }
    modal = opened;
  }

  /** After an approval that counts, the next person who is needed is chosen. */
  function chooseNext() {
    const next = app.state.people.find(it => it.needed);
    if (!next) return;
    choosePerson(next.name, false);
    announce(`You now click as ${next.title}.`);
  }

  function draw() {
    if (!app.state) return;
    drawTabs();
    drawPeople();
    drawRoom();
  }

  function forget() {
    drawn.clear();
    lastShown = '';
    closeModal();
  }

  return { draw, choosePerson, chooseNext, openModal, closeModal, forget };
}
