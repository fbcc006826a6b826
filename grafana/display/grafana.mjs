// @grafana/data in Node. The package is made for browsers.
import { createRequire } from 'node:module';

// The package reads this variable. While it is loaded, a window would need a document.
globalThis.window = undefined;
Object.defineProperty(globalThis, 'navigator', { value: { language: 'en-US', languages: ['en-US'] }, configurable: true });
export const grafana = createRequire(import.meta.url)('@grafana/data');
globalThis.window = globalThis;
