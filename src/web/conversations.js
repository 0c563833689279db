// Conversations of the playground: the messages of each model. They are kept with the browser's tab, so that a reload loses nothing.

const KEY = "espalier-conversations";

function all() {
  try {
    return JSON.parse(sessionStorage.getItem(KEY)) ?? {};
  } catch {
    return {};
  }
}

/** Messages with a model so far: `[{role, content}]`. */
export function conversationWith(modelId) {
  return all()[modelId] ?? [];
}

export function keepConversation(modelId, messages) {
  sessionStorage.setItem(KEY, JSON.stringify({ ...all(), [modelId]: messages }));
}

export function forgetConversations() {
  sessionStorage.removeItem(KEY);
}
