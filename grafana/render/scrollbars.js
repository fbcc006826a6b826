// @grafana/ui imports the default export of this package. esbuild follows Node's rules for that, and finds an object.
export { Scrollbars as default } from '../node_modules/react-custom-scrollbars-2/lib/index.js';
