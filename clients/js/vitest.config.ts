import { defineConfig } from 'vitest/config';

const here = (path: string) => new URL(path, import.meta.url).pathname;
// The examples import the package by its name.
const client = { '@duelhub/client/react': here('./src/react.ts') };
const of18 = (name: string) => here(`./tests/react-18/node_modules/${name}`);
const of19 = (name: string) => here(`./node_modules/${name}`);

export default defineConfig({
  test: {
    projects: [
      { test: { name: 'client', include: ['tests/*.test.ts'] } },
      // The hook, with each React that it is for.
      { test: { name: 'react 19', include: ['tests/*.test.tsx'], environment: 'jsdom', testTimeout: 60_000 }, resolve: { alias: { ...client, react: of19('react') } } },
      { test: { name: 'react 18', include: ['tests/*.test.tsx'], environment: 'jsdom', testTimeout: 60_000 }, resolve: { alias: { ...client, react: of18('react'), 'react-dom': of18('react-dom') } } },
    ],
  },
});
