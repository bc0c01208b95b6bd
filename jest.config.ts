import type { Config } from "jest";

// Node strips the types (Jest >= 30.5, Node >= 22.13), so there is no transformer to configure.
const project = { testEnvironment: "node", transform: {}, restoreMocks: true } satisfies Config;

export default {
  coverageProvider: "v8",
  collectCoverageFrom: ["src/**/*.ts", "!src/**/*.test.ts", "!src/cmd/**"],
  // Tests of real processes wait with deadlines of their own; this one only ends a hung file.
  testTimeout: 60_000,
  projects: [
    { ...project, displayName: "unit", testMatch: ["<rootDir>/src/**/*.test.ts"] },
    { ...project, displayName: "repo", testMatch: ["<rootDir>/test/repo/**/*.test.ts"] },
    {
      ...project,
      displayName: "integration",
      testMatch: ["<rootDir>/test/integration/**/*.test.ts"],
    },
    // The attack suite; what needs a real API server is beside it and runs with the tier api.
    { ...project, displayName: "security", testMatch: ["<rootDir>/test/security/*.test.ts"] },
    {
      ...project,
      displayName: "security-api",
      testMatch: ["<rootDir>/test/security/api/*.test.ts"],
    },
    { ...project, displayName: "api", testMatch: ["<rootDir>/test/api/**/*.test.ts"] },
    { ...project, displayName: "chart", testMatch: ["<rootDir>/test/chart/**/*.test.ts"] },
    { ...project, displayName: "e2e", testMatch: ["<rootDir>/test/e2e/**/*.test.ts"] },
  ],
} satisfies Config;
