import { defineConfig } from 'vite';

const hub = process.env.HUB_URL ?? 'http://127.0.0.1:8090';

export default defineConfig({
  // Relative, so that the built page works under any path.
  base: './',
  server: {
    proxy: {
      '/api': hub,
      '/demo/api': hub,
      '/ws': { target: hub, ws: true },
    },
  },
});
