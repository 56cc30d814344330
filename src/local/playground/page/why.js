// The right: which rule decides and why, the record, and every HTTP message.
import { $, announce, button, clockTime, code, copyText, h, icon, minuteTime, painted, pretty, redraw, showText, tabs } from './dom.js';
import { call } from './server.js';

const TABS = [
  { key: 'rules', name: 'Rules' },
  { key: 'record', name: 'Record', unit: ['entry', 'entries'] },
  { key: 'http', name: 'HTTP', unit: ['message', 'messages'] },
];
/** With more rules, only those that help are shown. */
const MAX_RULES = 6;
const MARKS = { yes: '✓', no: '✗', any: 'any' };

export function createWhy(app) {
  const { ui } = app;
  const rules = { text: null, verdict: null, checking: 0 };
  let tampered = null;
  let callShown = '';

  function choose(key) {
    ui.why = key;
    callShown = '';
    draw();
  }

  function drawTabs() {
    const entries = TABS.map(tab => ({
      ...tab,
      count: tab.key === 'http' ? app.calls().length : tab.key === 'record' ? app.state.record?.entries.length : 0,
    }));
    redraw($('whys'), () => tabs('whys', entries, ui.why, choose, 'why'));
    const state = app.state.record?.state;
    showText('state', state ?? (app.state.current ? 'requested' : 'nothing yet'));
    const kinds = { activated: 'good', pending: 'warn', approved: 'info', activating: 'info', rejecting: 'info' };
    $('state').className = `badge ${state ? (kinds[state] ?? 'bad') : ''}`;
  }

  function drawBecause() {
    const step = app.lastStep();
    redraw($('because'), () =>
      step
        ? [
            h('p', null, h('b', null, step.title), '. ', step.why),
            app.seen.length > 0 &&
              h('p', { class: 'seen' }, app.seen.map(({ says, seen }) => h('span', { class: seen ? '' : 'bad' }, `${seen ? '✓' : '✗ not seen:'} ${says}`))),
          ]
        : h('p', null, h('b', null, 'Nothing has happened yet. '), 'Each step says here what peergate did, and why.'),
    );
  }

  // Rules

  function shownRules(all) {
    if (all.length <= MAX_RULES) return all;
    const deciding = all.findIndex(rule => rule.outcome === 'decides');
    const misses = rule => rule.cells.filter(cell => cell.mark === 'no').length;
    const near = [...all].sort((one, other) => misses(one) - misses(other)).slice(0, MAX_RULES);
    return all.filter((rule, i) => i <= deciding || near.includes(rule));
  }

  function drawMatrix() {
    const explained = app.state.rules;
    if (!explained) return h('div', { class: 'block' }, h('p', { class: 'muted' }, 'A request shows here which rule decides, fact by fact, and why each other rule does not.'));
    const shown = shownRules(explained.rules);
    const column = rule => (rule.outcome === 'decides' ? 'decides' : '');
    const table = h(
      'table',
      { class: 'matrix' },
      h('caption', { class: 'sr' }, 'Each fact of the request, and what each rule says about it'),
      h('thead', null, h('tr', null, h('th', { scope: 'col' }, 'Fact'), h('th', { scope: 'col' }, 'Request'), shown.map(rule => h('th', { scope: 'col', class: column(rule), title: rule.name }, String(rule.number))))),
      h(
        'tbody',
        null,
        explained.facts.map((fact, i) =>
          h(
            'tr',
            null,
            h('th', { scope: 'row' }, fact.name),
            h('td', { class: 'mono' }, fact.value),
            shown.map(rule => h('td', { class: `${column(rule)} ${rule.cells[i].mark}`, title: `allowed: ${rule.cells[i].allowed}` }, MARKS[rule.cells[i].mark])),
          ),
        ),
      ),
    );
    return h(
      'div',
      { class: 'block' },
      h('p', { class: 'small', 'data-explains': true }, explained.says),
      table,
      h('ol', { class: 'rules' }, shown.map(rule => h('li', { class: column(rule) }, h('i', null, String(rule.number)), h('span', null, rule.says)))),
      app.state.current &&
        h('p', { class: 'copyline' }, h('code', { class: 'one-line' }, `peergate policy explain --request ${app.state.current}`), copyButton(`peergate policy explain --request ${app.state.current}`)),
    );
  }

  const copyButton = text =>
    h('button', { type: 'button', class: 'btn icon quiet small', 'aria-label': `Copy the command ${text}`, click: () => copyText(text, 'Command') }, icon('copy'));

  /** The lines of the rule that decides. */
  function decidingLines(lines) {
    const deciding = app.state.rules?.deciding;
    const starts = lines.flatMap((line, i) => (line.trim() === '[[rule]]' ? [i] : []));
    const from = deciding ? starts[deciding - 1] : undefined;
    if (from === undefined) return () => false;
    const next = lines.findIndex((line, i) => i > from && line.startsWith('['));
    const to = next < 0 ? lines.length : next;
    return i => i >= from && i < to && lines.slice(i, to).some(line => line.trim());
  }

  function paintEditor(pre) {
    const lines = rules.text.split('\n');
    const decides = rules.text === app.state.config ? decidingLines(lines) : () => false;
    const wrong = rules.verdict?.valid === false ? rules.verdict.line : null;
    pre.replaceChildren(
      ...lines.map((line, i) => h('span', { class: `${decides(i) ? 'decides' : ''} ${wrong === i + 1 ? 'wrong' : ''}` }, line ? painted(line, true) : '\u200b')),
    );
  }

  async function check() {
    const mine = ++rules.checking;
    const verdict = await call('validate', rules.text);
    if (mine !== rules.checking) return;
    rules.verdict = verdict;
    showVerdict();
    if (verdict.line && !document.activeElement?.matches('.editor textarea')) goToLine(verdict.line);
  }

  function goToLine(number) {
    const line = document.querySelector('.editor pre').children[number - 1];
    if (line) line.closest('.editor').scrollTop = line.offsetTop - 36;
  }

  /** Puts the caret there. */
  function editLine(number) {
    const area = document.querySelector('.editor textarea');
    const start = rules.text.split('\n').slice(0, number - 1).join('\n').length + (number > 1 ? 1 : 0);
    area.focus({ preventScroll: true });
    area.setSelectionRange(start, start);
    goToLine(number);
  }

  /** What may be meant stands first: the rest can be long. */
  function hintFirst(message) {
    const [problem, hint] = message.split(/; (?=did you mean )/);
    return hint ? `${hint[0].toUpperCase()}${hint.slice(1)} ${problem}.` : `${problem}.`;
  }

  function showVerdict() {
    const verdict = $('verdict');
    if (!verdict) return;
    const { valid = true, message } = rules.verdict ?? {};
    const changed = rules.text !== app.state.config;
    verdict.classList.toggle('wrong', !valid);
    const { line } = rules.verdict ?? {};
    redraw(verdict, () => [
      h('span', { class: 'grow says', role: 'status', tabindex: valid ? null : '0' }, !valid ? `Not in force: the old rules are. ${hintFirst(message)}` : changed ? 'Valid, not applied.' : 'In force.'),
      !valid && line && button(`Line ${line}`, () => editLine(line)),
      button('Apply', apply, { disabled: !valid || !changed, kind: 'primary', title: 'Ctrl+Enter' }),
    ]);
    const pre = document.querySelector('.editor pre');
    if (pre) paintEditor(pre);
  }

  async function apply() {
    if (await app.act({ do: 'rules', config: rules.text })) {
      rules.verdict = null;
      announce('The rules are in force');
      draw();
    }
  }

  function drawEditor() {
    const pre = h('pre', { 'aria-hidden': 'true' });
    const area = h('textarea', { 'aria-label': 'peergate.toml', spellcheck: 'false', autocomplete: 'off', wrap: 'off', 'data-key': 'field rules', 'aria-describedby': 'verdict' });
    area.addEventListener('input', () => {
      rules.text = area.value;
      paintEditor(pre);
      check().catch(app.fail);
    });
    area.addEventListener('keydown', event => {
      if (event.key === 'Enter' && (event.ctrlKey || event.metaKey)) apply();
    });
    return h(
      'div',
      { class: 'lower', 'data-part': 'editor' },
      h(
        'div',
        { class: 'line head' },
        h('h2', { class: 'mono' }, 'peergate.toml'),
        h('span', { class: 'grow' }),
        button('Copy', () => copyText(rules.text, 'peergate.toml'), { kind: 'quiet', mark: 'copy' }),
        button('Copy secrets', async () => copyText(JSON.stringify((await call('export')).secrets, null, 2), 'Secrets'), { kind: 'quiet', title: 'The throw-away keys, for cargo lambda invoke' }),
        button('Reset', () => { rules.text = app.state.config; rules.verdict = null; draw(); }, { kind: 'quiet' }),
      ),
      h('div', { class: 'editor', 'data-scroll': 'editor' }, h('div', { class: 'page' }, pre, area)),
      h('div', { class: 'verdict', id: 'verdict' }),
    );
  }

  function drawRules() {
    redraw($('why'), () => [h('div', { class: 'scroll upper', tabindex: '0', role: 'group', 'aria-label': 'Which rule decides', 'data-scroll': 'matrix' }, drawMatrix()), drawEditor()]);
    const area = document.querySelector('.editor textarea');
    if (area.value !== rules.text) area.value = rules.text;
    showVerdict();
    const deciding = app.state.rules?.deciding;
    if (deciding !== rules.shown) {
      rules.shown = deciding;
      goToLine([...document.querySelector('.editor pre').children].findIndex(line => line.matches('.decides')) + 1);
    }
  }

  // Record

  async function tamper(entry) {
    tampered = await call('tamper', { entry });
    draw();
  }

  function drawEntry(entry) {
    const isHit = tampered?.entry === entry.number;
    const isAfter = tampered && entry.number > tampered.entry;
    const classes = [entry.kind, isHit && 'tampered', isAfter && 'unproven'].filter(Boolean).join(' ');
    return h(
      'li',
      { class: classes, 'data-part': `entry ${entry.number}` },
      h('p', { class: 'at' }, h('span', { class: 'mono' }, String(entry.number)), h('time', { class: 'mono' }, `${minuteTime(entry.at).slice(0, 10)} ${clockTime(entry.at)}`), h('span', { class: 'badge' }, entry.state), isHit && h('span', { class: 'badge bad' }, 'edited in a copy')),
      h('p', { class: 'what' }, entry.words, isHit && [' ', h('del', null, tampered.was), ' ', h('ins', null, tampered.now)]),
      h('p', { class: 'hash' }, h('span', { title: entry.hash }, h('b', null, `${entry.hash.slice(0, 12)}…`)), h('span', null, isAfter ? 'not proven any more' : entry.number ? `after ${entry.before.slice(0, 12)}…` : `after ${entry.before}`)),
      entry.fingerprint && h('p', { class: 'hash' }, h('span', { title: entry.fingerprint }, `facts ${entry.fingerprint.slice(0, 12)}…`)),
    );
  }

  function drawRecord() {
    const record = app.state.record;
    if (!record) return redraw($('why'), () => h('div', { class: 'empty' }, icon('link'), h('h3', null, 'No record yet'), h('p', null, 'Everything that happens to a request becomes an entry here. Each holds the hash of the one before.')));
    if (tampered && tampered.entry >= record.entries.length) tampered = null;
    const target = Math.max(0, record.entries.findIndex(entry => entry.kind === 'decided'));
    const holds = !tampered && record.verify.holds;
    return redraw($('why'), () => [
      h(
        'div',
        { class: `proof ${holds ? 'holds' : 'broken'}` },
        icon(holds ? 'check' : 'cross'),
        h('p', { class: 'says', role: 'status' }, tampered ? tampered.says : record.verify.says),
        tampered
          ? button('Put it back', () => { tampered = null; draw(); }, { 'data-key': 'tamper' })
          : button(`Tamper with entry ${target}`, () => tamper(target).catch(app.fail), { kind: 'danger', 'data-key': 'tamper' }),
      ),
      h(
        'div',
        { class: 'scroll', tabindex: '0', role: 'group', 'aria-label': 'Timeline', 'data-part': 'timeline', 'data-scroll': 'timeline' },
        h('ol', { class: 'chain', 'data-part': 'chain' }, record.entries.map(drawEntry)),
        record.due.length > 0 && h('div', { class: 'block' }, h('h3', null, 'What is due'), h('dl', { class: 'due' }, record.due.map(({ what, at }) => h('div', null, h('dt', null, what), h('dd', { class: 'mono' }, `${minuteTime(at)} UTC`))))),
      ),
      h('p', { class: 'copyline foot' }, h('code', { class: 'one-line' }, `peergate show ${app.state.current}`), copyButton(`peergate show ${app.state.current}`)),
    ]);
  }

  // HTTP

  function drawHttp() {
    const all = app.calls();
    const calls = all.filter(it => ui.node === null || app.nodesOf(it).includes(ui.node));
    const showAll = () => button('Show all', () => { ui.node = null; app.draw(); });
    if (!calls.length) {
      redraw($('why'), () => h('div', { class: 'empty' }, icon('out'), h('h3', null, all.length ? 'No message here' : 'No message yet'), h('p', null, 'Every HTTP message of every step stands here, redacted as the logs are.'), ui.node !== null && showAll()));
      return;
    }
    const inStep = calls.filter(it => it.step === app.state.step);
    const chosen = calls.find(it => it.number === ui.call) ?? inStep.find(it => it.incoming) ?? calls.at(-1);
    const groups = new Map();
    for (const it of calls) groups.set(it.step, [...(groups.get(it.step) ?? []), it]);
    redraw($('why'), () =>
      h(
        'div',
        { class: 'wire', 'data-part': 'wire' },
        h(
          'div',
          { class: 'scroll list', tabindex: '0', role: 'group', 'aria-label': 'HTTP messages', 'data-part': 'calls', 'data-scroll': 'calls' },
          ui.node !== null && h('p', { class: 'verdict' }, h('span', { class: 'grow' }, `Only ${app.nodeName(ui.node)}`), showAll()),
          [...groups].map(([step, some]) => h('ol', { 'data-part': `step ${step}` }, h('li', null, h('h3', null, `${step}  ${app.steps.get(step)?.title ?? ''}`)), some.map(it => drawCall(it, it === chosen)))),
        ),
        drawDetail(chosen),
      ),
    );
    // What arrives in this step, and what was seen, moves the list under the message.
    const shown = [ui.node, chosen.number, ui.call ?? inStep.length, ui.call ?? app.seen.length].join();
    if (shown === callShown) return;
    callShown = shown;
    $('why').querySelector('.call[aria-current]').scrollIntoView({ block: 'center' });
  }

  function statusClass(it) {
    if (app.isRefusal(it)) return 'bad';
    return it.status >= 400 ? 'warn' : '';
  }

  function drawCall(it, isChosen) {
    const choose = () => { ui.call = it.number; draw(); };
    return h(
      'li',
      { 'data-part': `call ${it.number}` },
      h(
        'button',
        { type: 'button', class: 'call', 'aria-current': isChosen ? 'true' : null, 'data-key': `call ${it.number}`, click: choose },
        icon(it.incoming ? 'in' : 'out'),
        h('span', { class: 'one-line' }, h('span', { class: 'sr' }, it.incoming ? 'received ' : 'sent '), h('code', null, it.name), ' ', h('span', { class: 'note' }, it.note), it.repeats > 1 && h('span', { class: 'repeats' }, ` ×${it.repeats}`)),
        h('span', { class: `status ${statusClass(it)}` }, it.status === null ? 'none' : String(it.status)),
        h('span', { class: 'ms' }, `${it.ms} ms`),
      ),
    );
  }

  async function copyCall(number, form) {
    try {
      const { text } = await call('copy', { number, form });
      await copyText(text, form === 'curl' ? 'curl' : 'event.json');
    } catch (error) {
      app.fail(error);
    }
  }

  function drawDetail(it) {
    const headers = it.headers.map(([name, value]) => `${name}: ${value}`).join('\n');
    return h(
      'div',
      { class: 'detail', 'data-part': `detail ${it.number}` },
      h(
        'div',
        { class: 'bar' },
        h('b', { class: 'one-line grow mono' }, `${it.method} ${it.path}`),
        button('Copy as curl', () => copyCall(it.number, 'curl'), { mark: 'copy' }),
        it.event && button('event.json', () => copyCall(it.number, 'event'), { mark: 'copy', title: 'For cargo lambda invoke webhook, with the exported configuration and secrets' }),
      ),
      h(
        'div',
        { class: 'scroll', tabindex: '0', role: 'group', 'aria-label': 'Message', 'data-scroll': `detail ${it.number}` },
        code(headers, 'Headers'),
        h('h4', null, 'body'),
        code(it.body ? pretty(it.body) : '(empty)', 'Body'),
        h('h4', null, it.status === null ? `no answer, ${it.ms} ms` : `answer ${it.status}, ${it.ms} ms`),
        code(it.answer ? pretty(it.answer) : '(empty)', 'Answer'),
      ),
    );
  }

  function draw() {
    if (!app.state) return;
    if (rules.text === null || (rules.text === rules.inForce && rules.text !== app.state.config)) rules.text = app.state.config;
    rules.inForce = app.state.config;
    drawTabs();
    drawBecause();
    if (ui.why === 'rules') drawRules();
    else if (ui.why === 'record') drawRecord();
    else drawHttp();
    $('why').dataset.tab = ui.why;
    $('why').setAttribute('aria-labelledby', `tab-${ui.why}`);
  }

  function forget() {
    tampered = null;
    rules.text = null;
    rules.verdict = null;
  }

  return { draw, forget };
}
