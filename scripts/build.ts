import { chmodSync, rmSync } from 'node:fs'
import path from 'node:path'
import { build } from 'esbuild'

/**
 * Makes the program in dist/ of the sources: a file for all that is loaded together, since to find, read and link six hundred small ones
 * is a fifth of what a start takes of a processor. They are as readable as the sources, and say above each part which of them it is of.
 * Packages stay in node_modules. Types are not checked: `npm run typecheck` does that.
 */
const root = path.resolve(import.meta.dirname, '..')
const target = path.join(root, 'dist/src')

/** What a process or a thread begins with. Threads are looked for beside the file that starts them, so all are in one directory. */
const ENTRIES = [
  'main.ts',
  'node-worker.ts',
  'volume-copy-worker.ts',
  'runtime/copy-worker.mjs',
  'sheep/cluster/corosync-worker.mjs',
]

rmSync(path.join(root, 'dist'), { recursive: true, force: true })
for (const extension of ['.js', '.mjs']) {
  const entries = ENTRIES.filter((file) => path.extname(file).replace('.ts', '.js') === extension)
  await build({
    absWorkingDir: root,
    entryPoints: entries.map((file) => ({ in: path.join(root, 'src', file), out: path.parse(file).name })),
    outdir: target,
    outExtension: { '.js': extension },
    bundle: true,
    splitting: true, // what two of them need is there once, and what is imported late is loaded late
    packages: 'external',
    platform: 'node',
    format: 'esm',
    target: 'node20',
    sourcemap: true,
    logLevel: 'warning',
  })
}
chmodSync(path.join(target, 'main.js'), 0o755)
