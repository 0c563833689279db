// Calls the API of the server that served this page. Paths are relative, so that a proxy may add a prefix.

/** Why a request failed: the server's problem document. */
class ApiError extends Error {
  constructor(problem) {
    super(problem.detail);
    this.status = problem.status;
    this.code = problem.code;
    this.fields = problem.errors ?? [];
    this.requestId = problem.request_id;
    /** Seconds until the request may be sent again; null where the server does not say. */
    this.retryAfter = problem.retry_after ?? null;
  }
}

/** What the page knows of the server. */
export const server = { keyRequired: false, acceptsPageSize: true };

let signIn = async () => {};
/** Sets what asks for a key when the server wants one. */
export function onSignInNeeded(ask) {
  signIn = ask;
}

/** Path with encoded values: encoded`jobs/${id}`. */
export function encoded(strings, ...values) {
  return String.raw({ raw: strings }, ...values.map(encodeURIComponent));
}

export function apiUrl(path) {
  return new URL(path.replace(/^\//, ""), document.baseURI).href;
}

async function problemOf(response) {
  const seconds = Number(response.headers.get("retry-after"));
  const common = { request_id: response.headers.get("x-request-id"), retry_after: seconds > 0 ? seconds : null };
  try {
    const body = await response.json();
    const problem = body.error ? { detail: body.error.message, code: body.error.code, errors: [] } : body;
    return new ApiError({ ...common, ...problem, status: response.status });
  } catch {
    return new ApiError({ status: response.status, code: "unreadable", detail: `The server answered ${response.status}.`, ...common });
  }
}

/** Sends a request and returns the response; asks for a key and repeats it where the server wants one. */
export async function send(path, options = {}) {
  let response;
  try {
    response = await fetch(apiUrl(path), options);
  } catch (error) {
    if (error.name === "AbortError") throw error;
    throw new ApiError({ status: 0, code: "unreachable", detail: "The server cannot be reached. Check that it is running." });
  }
  if (response.ok) return response;
  if (response.status === 401 && path !== "session") {
    await signIn();
    return send(path, options);
  }
  throw await problemOf(response);
}

export async function getJson(path, options) {
  return (await send(path, options)).json();
}

/** Sends a JSON body; `options` may have another method. */
export async function postJson(path, body, options = {}) {
  const request = { method: "POST", headers: { "content-type": "application/json" }, body: JSON.stringify(body), ...options };
  return (await send(path, request)).json();
}

export async function putJson(path, body) {
  return postJson(path, body, { method: "PUT" });
}

export async function post(path) {
  return (await send(path, { method: "POST" })).json();
}

export async function remove(path) {
  await send(path, { method: "DELETE" });
}

/** Page of a list. A server whose maximum page size is smaller sends pages of its default size. */
export async function getPage(path, parameters, limit, options) {
  const query = new URLSearchParams(Object.entries(parameters).filter(([, value]) => value));
  if (server.acceptsPageSize) {
    try {
      return await getJson(`${path}?${new URLSearchParams([...query, ["limit", limit]])}`, options);
    } catch (error) {
      if (!error.fields?.some((field) => field.pointer === "/limit")) throw error;
      server.acceptsPageSize = false;
    }
  }
  return getJson(`${path}?${query}`, options);
}

/** The newest entries of a list, at least `most` of them if there are as many. */
export async function list(path, most, options) {
  const found = [];
  let after = "";
  while (found.length < most) {
    const page = await getPage(path, { after }, Math.min(most, 100), options);
    found.push(...page.data);
    if (!page.next) break;
    after = page.next;
  }
  return found;
}

/** Uploads a form and reports the share that was sent. */
export function upload(path, form, onProgress) {
  return new Promise((resolve, reject) => {
    const request = new XMLHttpRequest();
    request.open("POST", apiUrl(path));
    request.responseType = "text";
    request.upload.addEventListener("progress", (event) => event.lengthComputable && onProgress(event.loaded / event.total));
    request.addEventListener("error", () =>
      reject(new ApiError({ status: 0, code: "unreachable", detail: "The upload was interrupted. Check that the server is running." })));
    request.addEventListener("load", async () => {
      const names = ["x-request-id", "retry-after"];
      const headers = names.flatMap((name) => (request.getResponseHeader(name) ? [[name, request.getResponseHeader(name)]] : []));
      const response = new Response(request.responseText, { status: request.status, headers });
      if (response.ok) resolve(await response.json());
      else if (request.status === 401) resolve(signIn().then(() => upload(path, form, onProgress)));
      else reject(await problemOf(response));
    });
    request.send(form);
  });
}

/** Reads server-sent events of a response: yields `{id, event, data}`. The response is cancelled where the reader stops early. */
export async function* serverEvents(response) {
  const reader = response.body.pipeThrough(new TextDecoderStream()).getReader();
  let rest = "";
  try {
    for (;;) {
      const { value, done } = await reader.read();
      if (done) return;
      const blocks = (rest + value).split("\n\n");
      rest = blocks.pop();
      for (const block of blocks) {
        const event = eventOf(block);
        if (event.data) yield event;
      }
    }
  } finally {
    reader.cancel().catch(() => {});
  }
}

function eventOf(block) {
  const found = { event: "message", data: "" };
  for (const line of block.split("\n")) {
    const colon = line.indexOf(":");
    if (colon > 0) found[line.slice(0, colon)] = line.slice(colon + 1).trimStart();
  }
  return found;
}
