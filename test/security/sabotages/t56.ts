import type { Sabotage } from "../sabotage.ts";

const test = "test/security/t56-exchanged-folders.test.ts";
const file = "src/sandbox/tools/workspace.ts";

export const sabotages: readonly Sabotage[] = [
  {
    case: "T56",
    defence: "A folder on the way is opened only when it is no link",
    file,
    find: "const FOLDER_FLAGS = constants.O_RDONLY | constants.O_DIRECTORY | constants.O_NOFOLLOW;",
    replace: "const FOLDER_FLAGS = constants.O_RDONLY | constants.O_DIRECTORY;",
    test,
  },
  {
    case: "T56",
    defence: "A file is opened only when it is no link",
    file,
    find: "const READ_FLAGS = constants.O_RDONLY | constants.O_NOFOLLOW | constants.O_NONBLOCK;",
    replace: "const READ_FLAGS = constants.O_RDONLY | constants.O_NONBLOCK;",
    test,
  },
  {
    case: "T56",
    defence: "A new content is put in place by the open folder, not by a path",
    file,
    find: "const temporary = pathIn(folder, `.tmp-${randomUUID()}`);",
    replace: "const temporary = join(place.path, `../.tmp-${randomUUID()}`);",
    test,
  },
];
