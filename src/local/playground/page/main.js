// The page: what happened, as events say it, and what is drawn from that.
import { createChat } from './chat.js';
import { $, announce, h, redraw, showProblem, showText } from './dom.js';
import { createScenarios } from './scenarios.js';
import { call, openedWith, readEvents } from './server.js';
import { createTime } from './time.js';
import { createWhy } from './why.js';

const NODES = ['Requester', 'Alibaba Cloud', 'Watcher', 'Channel', 'People', 'Webhook', 'Alibaba Cloud'];
const [REQUESTER, ASKED, WATCHER, CHANNEL, PEOPLE, WEBHOOK, ACCEPTING] = NODES.keys();
const RETRY_MS = 1000;
const FAULTS = {
  throttle: ['Throttle', 'Throttling.User'],
  lose_answer: ['Lose an answer', 'after the effect'],
  slow: ['Slow', 'clicks may get no answer'],
  refuse_credentials: ['Refuse access', 'Forbidden.RAM'],
  status_lags: ['Status lags', 'shows Accepting'],
};
const PLAIN = {
  account: '1111111111111111', region: 'cn-hangzhou', vpc: 'vpc-requester', cidrs: '10.0.0.0/24', accepting_region: 'cn-shanghai',
  accepting_vpc: 'vpc-two-people', accepting_cidrs: '10.0.1.0/24', bandwidth: '1024', link_type: 'Gold', name: 'data to payments',
};
const PRESETS = {
  plain: {},
  one: { accepting_vpc: 'vpc-payments' },
  reason: { accepting_vpc: 'vpc-with-a-reason' },
  itself: { accepting_vpc: 'vpc-by-itself' },
  overlap: { cidrs: '10.0.1.0/25' },
  norule: { account: '3333333333333333' },
  hostile: { name: '<!channel> <img src=x onerror=alert(1)> [pay](https://evil.example)' },
};
const FIELDS = {
  account: 'account', region: 'region', vpc: 'vpc', cidrs: 'cidr', accepting_region: 'accepting-region', accepting_vpc: 'accepting-vpc',
  accepting_cidrs: 'accepting-cidr', bandwidth: 'bandwidth', link_type: 'link', name: 'name',
};

const app = {
  state: null,
  steps: new Map(),
  http: new Map(),
  seen: [],
  busy: 0,
  problem: '',
  latestStep: 0,
  ui: { platform: 'slack', person: 'alice', why: 'rules', view: 'card', node: null, call: null },
  waiting: [],

  /** The HTTP messages of the steps, in order. Those before the first step prepare the functions. */
  calls: () => [...app.http.values()].filter(it => it.step > 0).sort((one, other) => one.number - other.number),
  lastStep: () => app.steps.get(app.state?.step),
  nodeName: node => NODES[node],

  /** The parts of the way that an exchange touches; the last one is where it happened. */
  nodesOf({ place, by, name, note }) {
    const isAct = /^(Accept|Reject)/.test(name) && note !== 'dry run';
    const from = { requester: [REQUESTER], watcher: [WATCHER], webhook: [WEBHOOK], people: [PEOPLE] }[by] ?? [];
    const to = { alicloud: by === 'webhook' || isAct ? ACCEPTING : ASKED, channel: CHANNEL, people: PEOPLE, webhook: WEBHOOK, requester: REQUESTER, watcher: WATCHER }[place];
    return [...from.filter(node => node !== to), to];
  },

  isRefusal: ({ status, place, answer }) =>
    status === null || (status >= 400 && !(place === 'alicloud' && answer.includes('DryRunOperation'))),

  fail(error) {
    app.problem = error.message;
    showProblem(error.message);
  },

  /** Runs something that changes the stage. Returns null if it fails. */
  async run(what) {
    app.busy += 1;
    document.body.toggleAttribute('data-busy', true);
    showProblem('');
    try {
      return await what();
    } catch (error) {
      app.fail(error);
      return null;
    } finally {
      app.busy -= 1;
      document.body.toggleAttribute('data-busy', app.busy > 0);
      app.scenarios.draw();
    }
  },

  async act(action) {
    const { generation } = app.state;
    const done = await app.run(() => call('act', action));
    if (done) {
      await app.until(() => app.state.step >= done.step || app.state.generation !== generation);
      if (done.modal) app.openModal(done, action.by, action.app ?? app.ui.platform);
    }
    app.draw();
    if (done?.approved && action.by === app.ui.person) app.chat.chooseNext();
    return done;
  },

  /** Opens the modal of a step, unless the next step has begun. */
  openModal({ modal, step }, by, where, options) {
    if (step === app.latestStep) app.chat.openModal(modal, by, where, options);
  },

  /** The page follows who clicks in a scenario. */
  followClicker() {
    const done = app.lastStep()?.do;
    if (done?.by && done.do === 'click') {
      app.ui.person = done.by;
      app.ui.platform = done.app;
    }
  },

  /** Waits until the events say so. */
  until(condition) {
    return new Promise(resolve => {
      app.waiting.push({ condition, resolve });
      app.settle();
    });
  },

  settle() {
    app.waiting = app.waiting.filter(({ condition, resolve }) => {
      const holds = app.state && condition();
      if (holds) resolve();
      return !holds;
    });
  },

  draw() {
    if (!app.state) return;
    if (pointer.isDown) {
      pointer.hidesChanges = true;
      return;
    }
    drawFlow();
    app.scenarios.draw();
    app.chat.draw();
    app.why.draw();
    app.time.draw();
    drawRequester();
    document.body.dataset.step = app.state.step;
    document.body.dataset.state = app.state.record?.state ?? '';
  },
};

/** A click needs the same button at its beginning and end, so nothing is redrawn while a pointer is down. */
const pointer = { isDown: false, hidesChanges: false };

function releasePointer() {
  if (!pointer.isDown) return;
  // The click comes after the pointer is up.
  setTimeout(() => {
    const { hidesChanges } = pointer;
    pointer.isDown = pointer.hidesChanges = false;
    if (hidesChanges) app.draw();
  });
}

function drawFlow() {
  const calls = app.calls();
  const here = calls.filter(it => it.step === app.state.step);
  const latest = here.at(-1);
  const touched = new Set(here.flatMap(app.nodesOf));
  const last = NODES.map((_, node) => calls.findLast(it => app.nodesOf(it).at(-1) === node));
  const lit = latest ? app.nodesOf(latest).at(-1) : null;
  redraw($('flow'), () =>
    NODES.map((name, node) => {
      const isKilled = node === WATCHER && !app.state.watcher.running;
      const isRefused = node === lit && app.isRefusal(latest);
      const classes = [
        touched.has(node) && 'touched',
        touched.has(node) && touched.has(node + 1) && 'to-next',
        (last[node] || calls.some(it => app.nodesOf(it).includes(node))) && 'done',
        node === lit && !isRefused && 'lit',
        isRefused && 'refused',
        isKilled && 'killed',
      ].filter(Boolean);
      const says = isKilled ? 'killed' : isRefused ? exchangeText(latest) : nodeText(node, last[node]);
      const choose = () => {
        app.ui.node = app.ui.node === node ? null : node;
        app.ui.why = 'http';
        app.draw();
      };
      return h(
        'li',
        { class: classes.join(' ') },
        h(
          'button',
          { type: 'button', class: 'node', 'aria-current': node === lit ? 'step' : null, 'aria-pressed': String(app.ui.node === node), title: 'Show its HTTP messages', 'data-key': `node ${node}`, click: choose },
          h('span', { class: 'dot' }),
          h('span', { class: 'name' }, name),
          h('span', { class: 'last one-line' }, says),
        ),
      );
    }),
  );
}

function nodeText(node, latest) {
  if (node === REQUESTER) return app.state.current ?? '';
  if (node === ASKED) return app.state.status ?? '';
  if (node === WATCHER) return app.state.watcher.ticks ? `${app.state.watcher.last.discovered} found, ${app.state.watcher.last.delivered} posted` : '';
  if (!latest) return '';
  if (node === WEBHOOK) return latest.status === null ? 'no answer' : `answered ${latest.status}`;
  return exchangeText(latest);
}

function exchangeText(latest) {
  const refused = app.isRefusal(latest) ? ` ${latest.status ?? 'no answer'}` : '';
  return `${latest.name.replace('VpcPeerConnection', '')}${latest.note ? `, ${latest.note}` : ''}${refused}`;
}

function drawRequester() {
  if (!app.state) return;
  const isOpen = ['Accepting'].includes(app.state.status);
  const isDeleted = app.state.status === 'Deleted';
  for (const button of document.querySelectorAll('.acts [data-act]')) button.disabled = button.dataset.act === 'delete' ? !app.state.current || isDeleted : !isOpen;
  showText('change', `Change to ${nextBandwidth()} Mbit/s`);
  const isUnseen = isDeleted && app.state.record && app.state.record.state !== 'deleted';
  showText('acts-note', isUnseen ? 'Deleted. The watcher needs a second reading, a minute later: then the card says so.' : '');
  showText('send-label', app.state.current ? 'Send another request' : 'Send request');
  for (const { kind, on } of app.state.faults) document.querySelector(`[data-fault="${kind}"]`)?.setAttribute('aria-checked', String(on));
}

function fillIn(preset) {
  for (const [name, id] of Object.entries(FIELDS)) $(id).value = { ...PLAIN, ...PRESETS[preset] }[name];
}

/** The field that a refusal is about. */
function fieldOf(refusal) {
  const block = refusal.match(/"(.*)" is no CIDR block/)?.[1];
  if (block !== undefined) return ['cidr', 'accepting-cidr'].find(id => $(id).value.includes(block));
  const [, code] = refusal.match(/(?:IllegalParam\.|Missing)(Bandwidth|AcceptingVpcId|VpcId)/) ?? [];
  return { Bandwidth: 'bandwidth', AcceptingVpcId: 'accepting-vpc', VpcId: 'vpc' }[code];
}

function showFieldError(id, text) {
  const error = h('span', { class: 'error', id: `${id}-error`, role: 'alert' }, text);
  $(id).setAttribute('aria-invalid', 'true');
  $(id).setAttribute('aria-describedby', error.id);
  $(id).after(error);
  $(id).focus();
}

function removeFieldErrors() {
  for (const field of document.querySelectorAll('#request [aria-invalid]')) {
    field.removeAttribute('aria-invalid');
    field.removeAttribute('aria-describedby');
    $(`${field.id}-error`).remove();
  }
}

async function sendRequest(event) {
  event.preventDefault();
  removeFieldErrors();
  const request = Object.fromEntries(Object.entries(FIELDS).map(([name, id]) => [name, $(id).value.trim()]));
  // Two requests of the same two VPCs cannot be open at the same time.
  if (app.state.current && request.vpc === 'vpc-requester') request.vpc = `vpc-requester-${app.state.step + 1}`;
  if (await app.act({ do: 'request', ...request })) return;
  const field = fieldOf(app.problem);
  if (!field) return;
  showFieldError(field, app.problem);
  showProblem('');
}

/** The bandwidth in the field, or another one if the connection has that already. */
function nextBandwidth() {
  const [given, now] = [Number($('bandwidth').value), app.state?.bandwidth];
  if (Number.isInteger(given) && given > 0 && given !== now) return given;
  return now === 2048 ? 512 : 2048;
}

function actAsOwner(event) {
  const act = event.target.closest('[data-act]')?.dataset.act;
  if (act === 'change') app.act({ do: 'change', bandwidth: nextBandwidth() });
  else if (act === 'delete') app.act({ do: 'delete' });
  else if (act === 'bypass') app.act({ do: 'accept_in_console' });
  else if (act === 'expire') {
    const expires = app.state.record?.due.find(it => it.what === 'expires')?.at;
    const now = Date.now() + app.state.clock.ahead_ms;
    app.act({ do: 'advance', minutes: expires ? Math.ceil((Date.parse(expires) - now) / 60e3) + 1 : 7 * 24 * 60 });
  }
}

/** Says what is new in the chat and in the record. */
function announceChanges(before, now) {
  if (before?.generation !== now.generation) return;
  const known = new Set(before.platforms.flatMap(it => it.private.map(message => message.id)));
  for (const message of now.platforms.flatMap(it => it.private).filter(it => !known.has(it.id))) {
    const reader = now.people.find(it => it.name === message.to)?.title;
    announce(`Only ${reader} sees: ${message.text.split('\n')[0]}.`);
  }
  const words = ({ current, record }) =>
    record && `${current} is ${record.state}${record.state === 'pending' ? `, ${record.approved} of ${record.needed}` : ''}.`;
  if (words(now) && words(now) !== words(before)) announce(words(now));
}

function take(events) {
  for (const { kind, data } of events) {
    if (kind === 'reset') {
      app.steps.clear();
      app.http.clear();
      app.seen = [];
      app.latestStep = 0;
      app.ui.node = app.ui.call = null;
      app.ui.person = 'alice';
      app.chat.forget();
      app.why.forget();
    } else if (kind === 'step') {
      app.steps.set(data.step, data);
      app.latestStep = data.step;
      app.seen = [];
      app.chat.closeModal();
      announce(`${data.title}. ${data.why}`);
      app.ui.call = null;
    } else if (kind === 'http') app.http.set(data.number, data);
    else if (kind === 'state') {
      announceChanges(app.state, data);
      app.state = data;
    }
  }
  app.draw();
  app.settle();
}

async function follow() {
  for (;;) {
    try {
      showLost(false);
      await readEvents(take);
    } catch (error) {
      // Another start of the playground never takes our token.
      if (error.isFinal) return showLost(true);
    }
    showLost(true);
    await new Promise(resolve => setTimeout(resolve, RETRY_MS));
  }
}

function showLost(lost) {
  $('lost').hidden = !lost;
  $('live').classList.toggle('lost', lost);
  $('live').textContent = lost ? 'not connected' : 'live, on this machine';
}

function changeTheme() {
  const next = { undefined: 'light', light: 'dark', dark: undefined }[document.documentElement.dataset.theme];
  if (next) document.documentElement.dataset.theme = next;
  else delete document.documentElement.dataset.theme;
  $('theme').setAttribute('aria-label', `Theme: ${next ?? 'as the system'}`);
  announce(`Theme: ${next ?? 'as the system'}`);
}

function onKey(event) {
  const tab = event.target.closest?.('[role=tab]');
  if (tab && ['ArrowLeft', 'ArrowRight'].includes(event.key)) {
    const all = [...tab.parentElement.children];
    const to = all[(all.indexOf(tab) + (event.key === 'ArrowRight' ? 1 : -1) + all.length) % all.length].id;
    $(to).click();
    $(to).focus();
    return;
  }
  if (event.key === 'F6') {
    event.preventDefault();
    const panes = [...document.querySelectorAll('.pane')];
    const at = panes.findIndex(pane => pane.contains(document.activeElement));
    const to = panes[(at + (event.shiftKey ? -1 : 1) + panes.length) % panes.length];
    (to.querySelector('[role=tab][aria-selected=true], select') ?? to).focus();
    return;
  }
  const isField = event.target.matches?.('input:not([type=radio]):not([type=range]):not([type=checkbox]), textarea, select');
  if (event.ctrlKey || event.metaKey || event.altKey || !$('single').checked || isField || $('help').open || !app.state) return;
  const person = app.state.people[Number(event.key) - 1];
  if (person) app.chat.choosePerson(person.name);
  else if (event.key === 'n') app.scenarios.step();
  else if (event.key === 'p') app.scenarios.play();
  else if (event.key === '?') $('help').showModal();
}

app.chat = createChat(app);
app.why = createWhy(app);
app.time = createTime(app);
app.scenarios = createScenarios(app);
for (const [kind, [name, how]] of Object.entries(FAULTS)) {
  const toggle = event => app.act({ do: 'fault', fault: kind, on: event.currentTarget.getAttribute('aria-checked') !== 'true' });
  $('faults').append(
    h('button', { type: 'button', class: 'switch', role: 'switch', 'aria-checked': 'false', 'data-fault': kind, click: toggle }, h('span', { class: 'track', 'aria-hidden': 'true' }), h('span', { class: 'what' }, name), h('code', null, how)),
  );
}
fillIn('plain');
$('preset').addEventListener('change', () => fillIn($('preset').value));
$('bandwidth').addEventListener('input', drawRequester);
$('request').addEventListener('submit', sendRequest);
$('request').addEventListener('input', removeFieldErrors);
document.querySelector('.acts').addEventListener('click', actAsOwner);
$('theme').addEventListener('click', changeTheme);
$('keys').addEventListener('click', () => $('help').showModal());
$('problem-close').addEventListener('click', () => showProblem(''));
document.querySelector('.skip').addEventListener('click', event => {
  event.preventDefault();
  $('chat').focus();
});
document.addEventListener('keydown', onKey);
addEventListener('pointerdown', () => { pointer.isDown = true; }, true);
for (const kind of ['pointerup', 'pointercancel', 'keydown', 'blur']) addEventListener(kind, releasePointer, true);
// The list of a select and a scroll bar swallow the end of a press.
addEventListener('pointermove', event => event.buttons || releasePointer(), true);
app.scenarios.loadStories().catch(app.fail);
follow();
if (openedWith.length > 1) app.until(() => true).then(() => app.scenarios.open(openedWith));
