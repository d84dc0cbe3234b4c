// What happens at the node, as server-sent events; goes on after a lost connection, for ever.

const SILENCE_MS = 15000; // a heartbeat comes every 5 s
const AGAIN_MS = 2000;

// Calls told(event) for each event, and reach(state, why) with connecting, live or lost. The browser connects again by
// itself and says what it heard last; where it gives up, or hears nothing, we begin anew. A page that nobody sees hears
// nothing: a browser holds six connections to a host, and would stop all its pages of a node with the sixth.
export function follow(told, reach) {
  let source = null;
  let timer = 0;

  function open() {
    source?.close();
    source = new EventSource("/events");
    source.onmessage = (message) => {
      later(SILENCE_MS, () => lost("It is silent."));
      reach("live", "");
      told(JSON.parse(message.data));
    };
    source.addEventListener("trouble", (message) => lost(JSON.parse(message.data).error.message));
    source.onerror = () => lost("");
    later(SILENCE_MS, () => lost("It does not answer."));
  }

  function begin() {
    reach("connecting", "");
    open();
  }

  function rest() {
    clearTimeout(timer);
    source?.close();
  }

  function later(ms, act) {
    clearTimeout(timer);
    timer = setTimeout(act, ms);
  }

  function lost(why) {
    reach("lost", why);
    later(source.readyState === EventSource.CONNECTING ? SILENCE_MS : AGAIN_MS, open);
  }

  document.addEventListener("visibilitychange", () => {
    if (document.hidden) rest();
    else begin();
  });
  if (!document.hidden) begin();
}
