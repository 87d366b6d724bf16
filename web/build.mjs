// Builds web/dist, or the folder that is named: the page that the server shows, and the page that is one file. Same
// input, same output.
import { createHash } from 'node:crypto'
import { mkdir, readFile, rm, writeFile } from 'node:fs/promises'
import { resolve } from 'node:path'
import { fileURLToPath, pathToFileURL } from 'node:url'
import { gzipSync } from 'node:zlib'
import { build } from 'esbuild'

const GZIPPED_MAX = 80 * 1024
const here = new URL('.', import.meta.url)
const dist = process.argv[2] ? pathToFileURL(`${resolve(process.argv[2])}/`) : new URL('dist/', here)

async function bundle(entry) {
  const result = await build({
    entryPoints: [new URL(entry, here).pathname],
    bundle: true,
    minify: true,
    write: false,
    format: 'iife',
    target: 'es2022',
    charset: 'utf8',
    jsx: 'automatic',
    jsxImportSource: 'preact',
    legalComments: 'none',
  })
  return result.outputFiles[0].text
}

const script = await bundle('src/main.tsx')
const style = await bundle('src/style.css')
const layout = await bundle('src/layout.ts')
if (script.includes('</script') || style.includes('</style')) throw new Error('this would end its own block')

const page = (policy, head, body) => `<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
${policy}<meta name="viewport" content="width=device-width, initial-scale=1">
<meta name="color-scheme" content="light dark">
<title>tenure explorer</title>
${head}
</head>
<body>
<div id="app"></div>
${body}
</body>
</html>
`
const hash = text => `'sha256-${createHash('sha256').update(text).digest('base64')}'`
// A file that is opened from a disk has nobody to ask: its policy forbids every load.
const policy = `default-src 'none'; script-src ${hash(script)}; style-src ${hash(style)}; base-uri 'none'; form-action 'none'`
const files = {
  'app.js': script,
  'app.css': style,
  'layout.js': layout,
  'index.html': page('', '<link rel="icon" href="icon.svg">\n<link rel="stylesheet" href="app.css">', '<script src="app.js"></script>'),
  'report.html': page(
    `<meta http-equiv="Content-Security-Policy" content="${policy}">\n`,
    `<style>${style}</style>`,
    `<script type="application/json" id="story">"TENURE-STORY"</script>\n<script>${script}</script>`,
  ),
  'icon.svg': await readFile(new URL('src/icon.svg', here), 'utf8'),
}
if (!process.argv[2]) await rm(dist, { recursive: true, force: true })
await mkdir(dist, { recursive: true })
let gzipped = 0
for (const [name, text] of Object.entries(files)) {
  await writeFile(new URL(name, dist), text)
  gzipped += gzipSync(text).length
}
console.log(`${fileURLToPath(dist)}: ${gzipped} bytes gzipped`)
if (gzipped > GZIPPED_MAX) throw new Error(`that is more than ${GZIPPED_MAX}`)
