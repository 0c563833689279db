"""Checks the result of a page, from standard input: `allowed`, `allowed-chat`, or `refused` for a page of an origin that is not listed."""

import json
import sys


def check(condition, message):
    if not condition:
        sys.exit(f"error: {message}: {json.dumps(result)}")


expected, result = sys.argv[1], json.load(sys.stdin)
if expected == "refused":
    check("failure" in result and len(result) == 1, "a page of an origin that is not listed read an answer")
    print("a page of another origin: refused by the browser")
    sys.exit()
check("failure" not in result, "a call failed")
check(result["predict"]["status"] == 200 and "embedding" in result["predict"]["keys"], "no prediction")
check(result["error"]["status"] == 422 and result["error"]["code"] == "invalid_body", "the error was not readable")
check(all(result[call].get("requestId") for call in result if call != "models"), "x-request-id was not readable")
print(f"predict: {result['predict']['keys']}; error: {result['error']['code']}")
if expected == "allowed-chat":
    chat = result["chat"]
    check(chat["status"] == 200 and chat["text"] and chat["chunks"] > 2, "no chat stream")
    print(f"chat: {chat['chunks']} chunks: {chat['text']!r}")
