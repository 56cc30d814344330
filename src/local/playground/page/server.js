// The calls of the page. The token is in the address of the page once, and in no other address; from then on it is only here.
const TOKEN_HEADER = 'x-playground-token';
const token = location.pathname.split('/')[1];
export const openedWith = location.hash;
history.replaceState(null, '', '/');

const STOPPED = 'The playground does not answer. If it has stopped, start it again with peergate playground, and open the address that it prints: each start has a new one.';

async function ask(path, options) {
  let answer;
  try {
    answer = await fetch(`/api/${path}`, options);
  } catch {
    throw new Error(STOPPED);
  }
  if (answer.status === 401) throw Object.assign(new Error(STOPPED), { isFinal: true });
  return answer;
}

/** Calls the playground. Throws an error with its words. */
export async function call(path, body) {
  const isText = typeof body === 'string';
  const answer = await ask(path, {
    method: body === undefined ? 'GET' : 'POST',
    headers: { [TOKEN_HEADER]: token, ...(body === undefined ? {} : { 'content-type': isText ? 'text/plain' : 'application/json' }) },
    body: body === undefined ? undefined : isText ? body : JSON.stringify(body),
  });
  const text = await answer.text();
  let json = null;
  try {
    json = JSON.parse(text);
  } catch {
    // Not every refusal is JSON.
  }
  if (answer.status === 413) throw new Error('This text is too large for the playground: it takes up to 256 KiB.');
  if (!answer.ok) throw new Error(json?.error || text.trim() || `HTTP ${answer.status}`);
  return json;
}

let lastId = '0';
/** Reads events until the connection ends. The next call goes on where this one stopped. */
export async function readEvents(onEvents) {
  const answer = await ask('events', { headers: { [TOKEN_HEADER]: token, 'last-event-id': lastId } });
  if (!answer.ok) throw new Error(await answer.text());
  const reader = answer.body.pipeThrough(new TextDecoderStream()).getReader();
  let rest = '';
  for (;;) {
    const { value, done } = await reader.read();
    if (done) return;
    const parts = (rest + value).split('\n\n');
    rest = parts.pop();
    const events = parts.map(part => {
      const fields = Object.fromEntries(part.split('\n').map(line => line.split(/: (.*)/s).slice(0, 2)));
      lastId = fields.id;
      return { kind: fields.event, data: JSON.parse(fields.data) };
    });
    if (events.length) onEvents(events);
  }
}
