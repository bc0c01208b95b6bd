import { describe, expect, it } from "@jest/globals";
import { foreignCredentialPlace } from "./foreign-credentials.ts";

describe("a credential that a request brings", () => {
  it.each([
    ["private-token", 'header "private-token"'],
    ["job-token", 'header "job-token"'],
    ["deploy-token", 'header "deploy-token"'],
    ["cookie", 'header "cookie"'],
  ])("is found in header %s, also when it is empty", (name, place) => {
    expect(foreignCredentialPlace({ [name]: "" }, "")).toBe(place);
  });

  it.each(["access_token=x", "a=1&X-Amz-Signature=x", "a;PassWord=x", "auth=", "secret==x"])(
    "is found in query %s",
    (query) => {
      expect(foreignCredentialPlace({}, query)).toBe("the query");
    },
  );

  it.each(["", "beta=true", "service=git-upload-pack", "a=token", "token", "a=key&b"])(
    "is not in query %j",
    (query) => {
      expect(foreignCredentialPlace({ authorization: "Bearer x" }, query)).toBeUndefined();
    },
  );

  // By a search that begins anew at each letter, one of these would take minutes.
  it.each(["key", "a", "&key", "token;", "key&"])(
    "is looked for in the time it takes to read a query of %j",
    (part) => {
      expect(foreignCredentialPlace({}, part.repeat(500_000))).toBeUndefined();
    },
  );
});
