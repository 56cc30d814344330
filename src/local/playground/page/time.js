// The bottom: the clock, the watcher, and what kills them.
import { $, h, minuteTime, redraw, showText, span } from './dom.js';

const STOP = 1000;
const KEY_STEP = 50;

export function createTime(app) {
  const now = () => Date.now() + (app.state?.clock.ahead_ms ?? 0);
  let marks = [];
  /** Whether the slider shows a time that was not sent yet. */
  let isChoosing = false;

  function readMarks() {
    const asked = app.state.clock.asked_at;
    if (!asked) return [];
    const due = app.state.record?.due ?? [];
    const from = Date.parse(asked);
    return [
      { label: 'Asked', at: from },
      ...due.map(({ what, at }) => ({ label: what[0].toUpperCase() + what.slice(1), at: Date.parse(at), after: span(Date.parse(at) - from) })),
    ].sort((one, other) => one.at - other.at);
  }

  /** Equal parts between deadlines. */
  function toSlider(at) {
    if (marks.length < 2) return 0;
    const part = STOP / (marks.length - 1);
    const next = marks.findIndex(mark => mark.at > at);
    if (next < 0) return STOP;
    if (next === 0) return 0;
    const [from, to] = [marks[next - 1].at, marks[next].at];
    return part * (next - 1 + (at - from) / (to - from));
  }

  function fromSlider(value) {
    const part = STOP / (marks.length - 1);
    const i = Math.min(marks.length - 2, Math.floor(value / part));
    return marks[i].at + ((marks[i + 1].at - marks[i].at) * (value - i * part)) / part;
  }

  function moveTo(at) {
    const minutes = Math.ceil((at - now()) / 60e3);
    if (minutes > 0) app.act({ do: 'advance', minutes });
    else draw();
  }

  function drawClock() {
    const time = new Date(now());
    $('now').textContent = `${time.toISOString().slice(0, 19).replace('T', ' ')} UTC`;
    $('now').dateTime = time.toISOString();
    const asked = app.state?.clock.asked_at;
    $('since').textContent = asked ? `${span(now() - Date.parse(asked))} after the request` : 'sandbox clock';
    const slider = $('slider');
    const usable = marks.length > 1;
    slider.disabled = !usable;
    if (!isChoosing) slider.value = toSlider(now());
    slider.style.setProperty('--p', `${slider.value / 10}%`);
    slider.setAttribute('aria-valuetext', usable ? `${minuteTime(fromSlider(Number(slider.value)))} UTC` : 'nothing is requested yet');
  }

  function drawMarks() {
    redraw($('marks'), () =>
      marks.map(({ label, at, after }, i) => {
        const isPast = at <= now();
        const mark = h(
          'button',
          { type: 'button', class: isPast ? 'past' : '', 'aria-disabled': isPast ? 'true' : null, 'data-key': `mark ${label}`, title: `${minuteTime(at)} UTC${after ? `, ${after} after the request` : ''}`, click: () => moveTo(at) },
          label,
          after && h('span', { class: 'after' }, `, ${after}`),
        );
        mark.style.setProperty('--x', `${(i * 100) / Math.max(1, marks.length - 1)}%`);
        return mark;
      }),
    );
  }

  function drawWatcher() {
    const { watcher, webhook_armed: armed } = app.state;
    const { discovered, changed, delivered, undelivered } = watcher.last;
    showText('ticked', watcher.running ? 'Watcher: runs' : 'Watcher: killed');
    const did = `${discovered} found, ${changed} changed, ${delivered} posted${undelivered ? `, ${undelivered} not posted` : ''}`;
    showText('tick-next', watcher.running ? did : app.state.current && !app.state.record ? 'it has not found the request' : 'nothing is followed');
    $('tick').disabled = !watcher.running;
    showText('kill-watcher', watcher.running ? 'Kill the watcher' : 'Start the watcher');
    $('kill-watcher').classList.toggle('on', !watcher.running);
    $('kill-webhook').setAttribute('aria-pressed', String(armed));
  }

  function draw() {
    if (!app.state) return;
    marks = readMarks();
    drawClock();
    drawMarks();
    drawWatcher();
  }

  $('slider').min = 0;
  $('slider').max = STOP;
  function send() {
    if (!isChoosing) return;
    isChoosing = false;
    if (marks.length > 1) moveTo(fromSlider(Number($('slider').value)));
  }

  /** Arrows choose a time. It is sent with Enter, or when the focus leaves. */
  function onSliderKey(event) {
    if (event.key === 'Enter') return send();
    const part = STOP / Math.max(1, marks.length - 1);
    const by = { ArrowRight: KEY_STEP, ArrowUp: KEY_STEP, ArrowLeft: -KEY_STEP, ArrowDown: -KEY_STEP, PageUp: part, PageDown: -part, Home: -STOP, End: STOP }[event.key];
    if (event.key === 'Escape') isChoosing = false;
    else if (by) {
      event.preventDefault();
      isChoosing = true;
      // The clock does not go back.
      $('slider').value = Math.max(Number($('slider').value) + by, toSlider(now()));
    }
    return drawClock();
  }

  $('slider').addEventListener('keydown', onSliderKey);
  $('slider').addEventListener('input', () => { isChoosing = true; drawClock(); });
  $('slider').addEventListener('change', send);
  $('slider').addEventListener('blur', send);
  $('tick').addEventListener('click', () => app.act({ do: 'discover' }));
  $('kill-watcher').addEventListener('click', () => app.act({ do: app.state.watcher.running ? 'kill_watcher' : 'start_watcher' }));
  $('kill-webhook').addEventListener('click', () => app.act({ do: 'kill_webhook', armed: !app.state.webhook_armed }));
  setInterval(() => app.state && drawClock(), 1000);
  return { draw };
}
