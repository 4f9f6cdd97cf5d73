// Where the answers come from: a server, or the files of an exported folder.

const exported = globalThis.GRPO_EXPORT ?? null;

/** Whether this page was exported: nothing changes, and nothing can be computed. */
export const isExport = exported !== null;

/** When it was, in words. */
export const exportedAt = exported?.at ?? "";

const LATER = 10000;

/** Asks a question; a parameter that is a list is given several times. Rejects with a sentence. */
export async function ask(question, parameters = {}) {
  const asked = Object.entries(parameters).flatMap(([key, value]) => [value].flat().map((one) => [key, one]))
    .filter(([, value]) => value !== undefined && value !== null && value !== "");
  if (exported) return fromFiles(question, Object.fromEntries(asked));
  const reply = await fetch(`api/${question}?${new URLSearchParams(asked)}`).catch(() => null);
  if (reply === null) throw new Error("The server does not answer: was grpo-dashboard ended?");
  const answer = await reply.json();
  if (!reply.ok) throw new Error(answer.error ?? `The server answered ${reply.status}.`);
  return answer;
}

/** Calls back whenever the run changed; returns how to stop. */
export function listen(run, changed) {
  if (exported) return () => {};
  let events;
  let again;
  let first = true;
  const open = () => {
    events = new EventSource(`api/events?${new URLSearchParams({ run })}`);
    events.onmessage = (event) => {
      changed({ ...JSON.parse(event.data), first });
      first = false;
    };
    events.onerror = () => {
      changed(null);
      if (events.readyState === EventSource.CLOSED) again = setTimeout(open, LATER); // refused: too many listen
    };
  };
  open();
  return () => { clearTimeout(again); events.close(); };
}

async function fromFiles(question, parameters) {
  if (question === "runs") return exported.runs;
  const run = exported.answers[parameters.run];
  if (!run) throw new Error("This run is not in the exported folder.");
  if (question === "groups") return someGroups(run.groups, parameters);
  if (question === "group") {
    const name = `${parameters.step}/${parameters.phase}/${parameters.group}`;
    if (!(name in run.files)) throw new Error("This group was left out of the exported folder.");
    return load(run.files[name]);
  }
  if (question === "step") throw new Error("An exported folder holds the curves, not every step.");
  if (!(question in run)) throw new Error("This is not in an exported folder.");
  return run[question];
}

function someGroups(all, wanted) {
  const holds = (sample) => {
    if (wanted.outcome === "success" || wanted.outcome === "no success") {
      if (sample.success !== (wanted.outcome === "success")) return false;
    } else if (wanted.outcome && sample.outcome !== wanted.outcome) return false;
    if (wanted.low === undefined && wanted.high === undefined) return true;
    return sample.reward !== null && sample.reward >= (wanted.low ?? -Infinity) && sample.reward <= (wanted.high ?? Infinity);
  };
  const found = all.groups
    .filter((group) => (wanted.step === undefined || group.step === Number(wanted.step))
      && (!wanted.phase || group.phase === wanted.phase) && (!wanted.scenario || group.scenario === wanted.scenario))
    .map((group) => ({ ...group, samples: group.samples.map((sample) => ({ ...sample, wanted: holds(sample) })) }))
    .filter((group) => group.samples.some((sample) => sample.wanted));
  if (wanted.order === "newest") found.reverse();
  const start = Number(wanted.start ?? 0);
  return { ...all, total: found.length, start, groups: found.slice(start, start + 50) };
}

// A page that was opened from disk may not fetch, but it may run its own files: each of them hands its data over.
const waiting = new Map();
globalThis.GRPO_RECEIVE = (file, data) => waiting.get(file)?.(data);

function load(file) {
  return new Promise((resolve, reject) => {
    const script = document.createElement("script");
    waiting.set(file, (data) => { script.remove(); resolve(data); });
    script.onerror = () => reject(new Error(`${file} is missing from the exported folder.`));
    script.src = file;
    document.head.append(script);
  });
}
