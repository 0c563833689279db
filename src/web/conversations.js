// Conversations of the playground: the messages of each model. They are kept in the tab's storage, so that they survive a reload.

const KEY = "espalier-conversations";
let conversations = stored();

function stored() {
  try {
    return JSON.parse(sessionStorage.getItem(KEY)) ?? {};
  } catch {
    return {};
  }
}

/** A browser may refuse storage, or it is full: then only the page has the newest messages. */
function store() {
  try {
    sessionStorage.setItem(KEY, JSON.stringify(conversations));
  } catch {
    // The next reload has what was stored last.
  }
}

/** Messages with a model so far: `[{role, content}]`. */
export function conversationWith(modelId) {
  return conversations[modelId] ?? [];
}

export function keepConversation(modelId, messages) {
  conversations[modelId] = messages;
  store();
}

export function forgetConversations() {
  conversations = {};
  store();
}
