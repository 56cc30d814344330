// The top: scenarios that play themselves, and share texts.
import { $, announce, copyText, h, icon, redraw, showText } from './dom.js';
import { call } from './server.js';

/** The time that people have to read a step before the next one begins. */
const READING_MS = 1400;
const DEFAULT = '#story=two';

export function createScenarios(app) {
  let playing = null;
  let stories = [];

  async function loadStories() {
    stories = await call('stories');
    $('story-list').replaceChildren(
      ...stories.map(({ id, title, about, steps }) =>
        h('button', { type: 'button', 'data-story': id, click: () => open(`#story=${id}`) }, h('b', null, title), h('small', null, about), h('em', null, `${steps.length} steps`)),
      ),
    );
  }

  /** Shows a scenario. It does not start. */
  async function open(text) {
    stop();
    const opened = await app.run(() => call('open', { text }));
    if ($('scenarios').matches(':popover-open')) $('scenarios').hidePopover();
    if (opened) announce('The scenario is shown. Press Play or Step.');
    return Boolean(opened);
  }

  /** The step at which the sender was, if that is not the end. */
  function sharedStep() {
    const { until = 0, steps = [] } = app.state.scenario ?? {};
    return until > 0 && until < steps.length ? until : null;
  }

  const isDone = () => app.state.scenario && app.state.scenario.played >= app.state.scenario.steps.length;

  /** A scenario starts over, so what was done in free play stays until somebody chooses one. */
  async function choose() {
    if (app.state.step === 0) return open(DEFAULT);
    $('scenarios').showPopover();
    $('story-list').querySelector('button')?.focus();
    announce('Choose a scenario. It starts over.');
    return null;
  }

  /** Plays the next step, and returns whether there is another one. */
  async function step() {
    if (isDone()) return false;
    const played = app.state.scenario.played;
    const done = await app.run(() => call('step', {}));
    if (!done) return false;
    await app.until(() => app.state.scenario?.played > played);
    if (done.step === app.latestStep) app.seen = done.seen;
    app.followClicker();
    if (done.modal) app.openModal(done, app.ui.person, app.ui.platform, { takesFocus: false });
    app.draw();
    return !isDone() && done.seen.every(it => it.seen);
  }

  const stepOnce = () => app.busy ? null : app.state.scenario ? step() : choose();

  async function play() {
    if (playing) return stop();
    if (!app.state.scenario) return choose();
    const mine = {};
    playing = mine;
    draw();
    if (isDone()) await restart();
    const shared = sharedStep();
    while (playing === mine && (await step())) {
      if (app.state.scenario?.played === shared) {
        announce(`Stopped at step ${shared}, where it was shared. Play goes on.`);
        break;
      }
      await new Promise(resolve => { mine.resume = resolve; setTimeout(resolve, READING_MS); });
    }
    if (playing === mine) stop();
    return null;
  }

  function stop() {
    playing?.resume?.();
    playing = null;
    draw();
  }

  async function restart() {
    const generation = app.state.generation;
    await app.run(() => call('reset', {}));
    await app.until(() => app.state.generation > generation);
  }

  function draw() {
    if (!app.state) return;
    const scenario = app.state.scenario;
    showText('story-name', scenario?.title ?? (app.state.step ? 'Free play' : 'none: free play'));
    showText('step-of', scenario ? `Step ${scenario.played} of ${scenario.steps.length}${sharedStep() ? ` (shared at step ${sharedStep()})` : ''}` : app.state.step ? `Step ${app.state.step}` : '');
    showText('step-title', app.lastStep()?.title ?? '');
    redraw($('play'), () => [icon(playing ? 'stop' : 'play'), h('span', null, playing ? 'Stop' : 'Play')]);
    // A disabled button would lose the focus.
    $('next').setAttribute('aria-disabled', String(Boolean(isDone() || app.busy)));
    for (const button of $('story-list').children) button.setAttribute('aria-current', String(button.dataset.story === scenario?.id));
  }

  $('play').addEventListener('click', play);
  $('next').addEventListener('click', () => { stop(); stepOnce(); });
  $('restart').addEventListener('click', () => { stop(); restart(); });
  $('share').addEventListener('click', async () => {
    const shared = await app.run(() => call('share', {}));
    if (shared) copyText(shared.text, 'Share text');
  });
  $('open').addEventListener('submit', event => {
    event.preventDefault();
    open($('open-text').value);
  });
  return { draw, play, step: () => { stop(); return stepOnce(); }, stop, loadStories, open };
}
