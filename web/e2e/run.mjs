// The page in a real browser: `node e2e/run.mjs`, with the program built. TENURE names it, CHROMIUM the browser;
// with SCREENSHOTS=1 the pictures in docs/screenshots are taken again; ONLY=words runs the tests that are so named.
import assert from 'node:assert/strict'
import { execFileSync, spawn } from 'node:child_process'
import { mkdirSync, mkdtempSync, readFileSync, rmSync, statSync, writeFileSync } from 'node:fs'
import { availableParallelism, tmpdir } from 'node:os'
import { join, resolve } from 'node:path'
import { createInterface } from 'node:readline'
import axe from 'axe-core'
import { chromium } from 'playwright-core'

const root = new URL('../..', import.meta.url).pathname
const tenure = resolve(process.env.TENURE ?? join(root, 'target/debug/tenure'))
const executablePath = process.env.CHROMIUM ?? '/usr/bin/chromium'
const pictures = process.env.SCREENSHOTS ? join(root, 'docs/screenshots') : null
const work = mkdtempSync(join(tmpdir(), 'tenure-e2e-'))
const EVIL = '<img src=x onerror="document.title=\'hit\'">'

// Nothing in the working directory may be served.
mkdirSync(join(work, 'cwd/web/dist'), { recursive: true })
mkdirSync(join(work, 'cwd/ui'))
writeFileSync(join(work, 'cwd/web/dist/index.html'), 'not ours')
const explore = async (...args) => {
  const server = spawn(tenure, ['explore', '--listen', '127.0.0.1:0', ...args], { cwd: join(work, 'cwd'), stdio: ['ignore', 'pipe', 'inherit'] })
  const url = await new Promise((resolve, reject) => {
    createInterface({ input: server.stdout }).once('line', line => resolve(new URL(line)))
    server.once('exit', code => reject(new Error(`the explorer ended with ${code}`)))
  })
  return { server, url }
}
const { server, url: { origin } } = await explore()
const origins = [origin]

const context = await chromium.launchPersistentContext(join(work, 'profile'), {
  executablePath,
  headless: true,
  args: ['--headless', '--no-sandbox', '--disable-gpu', '--disable-quic', '--no-first-run', '--disable-background-networking', '--disable-component-update', '--disable-sync'],
  viewport: { width: 1360, height: 850 },
  acceptDownloads: true,
  permissions: ['clipboard-read', 'clipboard-write'],
})
const foreign = []
const problems = []
const listen = page => {
  page.on('request', request => { if (!/^(data|blob|file):/.test(request.url()) && !origins.some(ours => request.url().startsWith(`${ours}/`))) foreign.push(request.url()) })
  page.on('pageerror', error => problems.push(`${error}`))
  page.on('console', message => { if (/Content Security Policy|Refused to/.test(message.text())) problems.push(message.text()) })
}
context.on('page', listen)
const page = context.pages()[0] ?? (await context.newPage())
listen(page)
page.setDefaultTimeout(60_000)

const open = async hash => {
  await page.goto(`${origin}/#/`)
  await page.goto(`${origin}/${hash}`)
}
const accessible = async (what, where = page) => {
  await where.evaluate(axe.source)
  const { violations } = await where.evaluate(() => globalThis.axe.run())
  const told = violations.map(one => `${one.id}: ${one.nodes.slice(0, 3).map(node => `${node.target} ${node.failureSummary}`).join(' | ')}`)
  assert.deepEqual(told, [], `${what}: axe finds nothing`)
}
const theme = async name => {
  await page.emulateMedia({ colorScheme: name })
  await page.waitForTimeout(50)
}
const picture = async name => {
  if (!pictures) return
  mkdirSync(pictures, { recursive: true })
  for (const scheme of ['light', 'dark']) {
    await theme(scheme)
    const path = join(pictures, `${name}-${scheme}.png`)
    await page.screenshot({ path })
    assert(statSync(path).size < 300_000, `${path} is small`)
  }
  await theme('light')
}
const both = async what => {
  for (const scheme of ['dark', 'light']) {
    await theme(scheme)
    await accessible(`${what}, ${scheme}`)
  }
}
const download = async (button, name) => {
  await page.locator('.menu summary').click()
  const [file] = await Promise.all([page.waitForEvent('download'), page.locator('.menu button', { hasText: button }).click()])
  const path = join(work, name)
  await file.saveAs(path)
  await page.locator('.menu summary').click()
  return path
}

const tests = {
  async 'the gallery has every rule, its story and its real-world bug'() {
    const begun = Date.now()
    await open('#/')
    await page.locator('.card').first().waitFor()
    console.log(`    first paint and data: ${Date.now() - begun} ms, ${availableParallelism()} cores`)
    assert((await page.locator('.card').count()) >= 45)
    const card = page.locator('.card', { has: page.getByRole('heading', { name: 'L-1', exact: true }) })
    assert.match(await card.innerText(), /deadline counts from the send/i)
    assert.equal(await card.locator('a.real').getAttribute('href'), 'https://github.com/kubernetes/kubernetes/issues/44887')
    await both('the gallery')
    await picture('gallery')
  },

  async 'a counterexample is stepped by keyboard to the red overlap'() {
    await open('#/')
    await page.getByRole('link', { name: 'Show L-1', exact: true }).click()
    await page.locator('.diagram').waitFor()
    const output = page.locator('.scrubber output')
    const [, last] = /of (\d+)/.exec(await output.innerText())
    await page.keyboard.press('Home')
    await page.waitForFunction(() => /step 0 /.test(document.querySelector('.scrubber output').textContent))
    assert.equal(await page.locator('aside .alert').count(), 0, 'nothing is wrong at the beginning')
    for (let step = 1; step <= Number(last); step++) {
      await page.keyboard.press(step % 2 ? 'j' : 'ArrowDown')
      await page.waitForFunction(step => document.querySelector('.scrubber output').textContent.startsWith(`step ${step} of`), step)
    }
    await page.locator('aside .alert', { hasText: 'may both write' }).waitFor()
    assert.equal(await page.locator('svg .overlap-word').first().textContent(), 'OVERLAP')
    assert((await page.locator('svg rect.overlap-bar').count()) >= 2, 'both hosts, with a pattern')
    await page.locator('.properties .bad', { hasText: 'single_writer' }).waitFor()
    await page.locator('.tree .mark').first().waitFor()
    await both('a counterexample')
    await picture('diagram')
    await page.locator('.scrubber input').focus()
    await page.keyboard.press('k')
    await page.waitForFunction(() => !document.querySelector('aside .alert'))
    await page.locator('.actions button').first().waitFor()
    await page.keyboard.press('?')
    await page.getByRole('dialog').waitFor()
    await accessible('the keys')
    await page.keyboard.press('Escape')
    await page.getByRole('dialog').waitFor({ state: 'hidden' })
    await page.waitForFunction(() => !document.activeElement?.closest('dialog'))
    await page.keyboard.press('t')
    await page.locator('.twin table').waitFor()
    await accessible('the text twin')
    await page.keyboard.press('t')
  },

  async 'a node is filtered, and steps are searched'() {
    const all = await page.locator('.lane').count()
    await page.locator('.chip', { hasText: 'host n0' }).click()
    assert.equal(await page.locator('.lane').count(), 1)
    assert.match(page.url(), /actors=0/)
    await page.locator('.chip', { hasText: 'host n0' }).click()
    assert.equal(await page.locator('.lane').count(), all)
    await page.keyboard.press('/')
    await page.keyboard.type('msg:write actor:n0')
    const hits = Number(/(\d+) step/.exec(await page.locator('.toolbar [role=status]').innerText())[1])
    assert(hits > 0)
    await page.locator('#search').fill('nothing like this')
    assert.match(await page.locator('.toolbar [role=status]').innerText(), /^0 /)
    await page.locator('#search').fill('')
    await page.locator('.chip', { hasText: 'causal cone' }).click()
    await page.locator('.chip', { hasText: 'causal cone' }).click()
  },

  async 'a step is chosen by hand, and a state is found'() {
    await open('#/model/irc-one')
    await page.locator('.actions button').first().waitFor()
    await page.locator('.actions button', { hasText: 'Ask Create' }).click()
    await page.waitForFunction(() => /step 1 of 1/.test(document.querySelector('.scrubber output').textContent))
    const [, before] = /path=([\d.]+)/.exec(page.url())
    await page.locator('.finder summary').click()
    await page.getByRole('button', { name: 'reach both_active' }).click()
    await page.locator('.found').waitFor()
    assert.match(await page.locator('.found').innerText(), /from step 1: [\s\S]*both_active\s*found/)
    assert(new URL(page.url()).hash.includes(`path=${before}.`), 'the way that is found goes on from the shown state')
    await page.locator('.properties li', { hasText: 'both_active' }).first().waitFor()
    await accessible('a model of regions')
    await picture('regions')
    await page.getByRole('button', { name: 'Regions', exact: true }).click()
    await page.locator('.regions tbody tr', { hasText: 'accepter says' }).first().waitFor()
    assert.match(await page.locator('.regions').innerText(), /views[\s\S]*Active[\s\S]*facts[\s\S]*Accepted[\s\S]*work log/)
    await both('regions side by side')
    await picture('regions-table')
    await page.getByRole('button', { name: 'Diagram' }).click()
    await page.locator('.node-search input').fill('customer running')
    await page.getByRole('button', { name: 'Find' }).click()
    await page.locator('.found', { hasText: 'customer running' }).waitFor()
  },

  async 'what never comes again is a loop with a line back'() {
    await open('#/model/timed-2')
    await page.locator('.finder summary').click()
    await page.getByRole('button', { name: 'no more taken_over' }).click()
    await page.locator('.found', { hasText: 'stays away' }).waitFor({ timeout: 240_000 })
    await page.locator('svg path.loop').waitFor({ state: 'attached' })
    await page.locator('.note', { hasText: 'a loop' }).waitFor()
    assert.match(page.url(), /loop=\d+/)
    await accessible('a loop')
    await picture('loop')
  },

  async 'who is sent on as soon as the page is there arrives'() {
    const front = await context.newPage()
    for (let n = 0; n < 20; n++) {
      await page.goto('about:blank')
      await page.goto(`${origin}/#/`, { waitUntil: 'domcontentloaded' })
      await page.goto(`${origin}/#/models`)
      await page.locator('h1', { hasText: 'Models' }).waitFor()
    }
    await front.close()
  },

  //= SPEC EXPLORER-20 test
  async 'the lanes show where clocks are fast and slow, and the text says it'() {
    // The timers of the first host run out as early as they may, those of the second as late.
    const model = 'timed-2-drift'
    const path = []
    let fired = 0
    for (let step = 0; step < 30; step++) {
      const { actions } = await (await fetch(`${origin}/api/state?model=${model}&path=${path.join('.')}`)).json()
      const by = is => actions.find(one => !one.idle && is(one))
      const next = (step < 9 ? by(one => one.kind === 'deliver') : null) ?? by(one => one.kind === 'fire' && one.actor === 0) ?? by(one => one.kind === 'elapse') ?? by(one => one.kind === 'fire') ?? by(() => true)
      path.push(next.index)
      if (next.kind === 'fire') fired = path.length
    }
    await open(`#/model/${model}?path=${path.slice(0, fired).join('.')}`)
    for (const [rate, left] of [['fast', true], ['slow', false]]) {
      await page.locator(`svg rect.clock.${rate}`).first().waitFor({ state: 'attached' })
      await page.locator('.legend', { hasText: `${rate} clock` }).waitFor()
      const [band, line] = await page.evaluate(rate => {
        const x = element => element.getBoundingClientRect().x
        const band = document.querySelector(`svg rect.clock.${rate}`)
        const lines = [...document.querySelectorAll('svg .lifeline')].map(x)
        return [x(band), lines.sort((a, b) => Math.abs(a - x(band)) - Math.abs(b - x(band)))[0]]
      }, rate)
      assert.equal(band < line, left, 'each on a side of its own, whatever its colour')
    }
    await page.locator('.nodes dd', { hasText: /^clock (fast|slow|true) timer \w+.*ran out after/ }).first().waitFor()
    await both('clocks')
    await picture('clocks')
    await page.keyboard.press('t')
    const twin = await page.locator('.twin').innerText()
    assert.match(twin, /its clock was fast since [\s\S]*ran out after/)
    assert.match(twin, /its clock was slow since [\s\S]*ran out after/)
    await accessible('clocks as text')
    await page.keyboard.press('t')
    const report = await (await context.newPage())
    await report.goto(`file://${await download('HTML', 'clocks.html')}`)
    await report.locator('svg rect.clock.slow').first().waitFor({ state: 'attached' })
    await report.locator('.legend', { hasText: 'fast clock' }).waitFor()
    await report.close()
  },

  async 'the states around one are drawn, and lead there'() {
    const { path } = JSON.parse(readFileSync(join(root, 'src/explorer/gallery.json'), 'utf8'))['L-1']
    const asked = []
    page.on('request', request => asked.push(request.url()))
    await open(`#/model/L-1?path=${path}`)
    await page.locator('.diagram').waitFor()
    assert(!asked.some(url => url.endsWith('/layout.js')), 'the layout is loaded when it is needed')
    await page.getByRole('button', { name: 'States', exact: true }).click()
    await page.locator('.graph .state.shown').waitFor()
    assert((await page.locator('.graph .state').count()) > 3)
    assert((await page.locator('.graph .state.bad').count()) >= 1, 'the overlap has a word and a border of its own')
    await both('the states around one')
    await picture('states')
    await page.locator('.graph-list summary').click()
    await accessible('the states as a list')
    await page.locator('.graph-list > ul > li > button', { hasNotText: 'the shown state' }).first().click()
    await page.waitForFunction(path => !location.hash.includes(`path=${path}&`) && !location.hash.endsWith(`path=${path}`), path)
    await page.getByRole('button', { name: 'Diagram' }).click()
  },

  //= SPEC EXPLORER-14 test
  async 'a run is followed while its nodes write, without asking again'() {
    const traces = join(work, 'live')
    mkdirSync(traces)
    const { server, url } = await explore('--follow', traces)
    origins.push(url.origin)
    const demo = spawn(tenure, ['demo', 'lease', '--trace-dir', traces], { stdio: 'ignore' })
    try {
      await page.goto(url.href)
      await page.locator('.live').waitFor({ timeout: 60_000 })
      const at = async () => (await page.locator('.scrubber output').innerText()).match(/step (\d+) of (\d+)/).slice(1).map(Number)
      const grown = async count => {
        for (const end = Date.now() + 60_000; Date.now() < end; await page.waitForTimeout(50)) if ((await at())[1] >= count) return at()
        throw new Error('no step came')
      }
      const asked = []
      page.on('request', request => asked.push(request.url()))
      const [row, last] = await grown((await at())[1] + 20)
      assert.equal(row, last, 'the end is shown')
      await page.waitForFunction(() => {
        const element = document.querySelector('.diagram')
        return element.scrollHeight - element.scrollTop - element.clientHeight < 200
      })
      await page.keyboard.press('k')
      const [held] = await at()
      const [still, more] = await grown(held + 20)
      assert.equal(still, held, 'who steps back stays there')
      await page.locator('.live.held', { hasText: 'more step' }).waitFor()
      await page.getByRole('button', { name: 'To the end' }).click()
      const [again, now] = await grown(more + 10)
      assert.equal(again, now)
      assert.deepEqual(asked, [], 'nothing was asked for meanwhile')
      await both('a run that is followed')
      await picture('live')
      console.log(`    ${now} steps of a run of 5 nodes were shown as they came`)
    } finally {
      demo.kill()
      server.removeAllListeners('exit')
      server.kill()
    }
  },

  async 'a model of a million states is explored while another is walked, and the page does not grow'() {
    const session = await context.newCDPSession(page)
    await session.send('Performance.enable')
    const heap = async () => {
      for (let n = 0; n < 3; n++) await session.send('HeapProfiler.collectGarbage')
      const { metrics } = await session.send('Performance.getMetrics')
      return metrics.find(one => one.name === 'JSHeapUsedSize').value / 1e6
    }
    const other = await context.newPage()
    await other.goto(`${origin}/#/model/timed-2-crash`)
    await other.locator('.finder summary').click()
    await other.getByRole('button', { name: 'Explore every state' }).click()
    await other.locator('.progress').waitFor()
    const heaps = []
    const times = []
    for (let round = 0; round < 4; round++) {
      await open('#/model/timed-2-crash')
      // In the page: what drives it from outside keeps something of every element that it touches. What happens in the
      // page before the address has changed belongs to the walk before.
      times.push(...await page.evaluate(async round => {
        const actions = () => [...document.querySelectorAll('.actions button')].filter(button => !button.querySelector('em'))
        const output = () => document.querySelector('.scrubber output')?.textContent ?? ''
        const is = step => output().split(' ').slice(0, 4).join(' ') === `step ${step} of ${step}` && actions().length > 0
        const until = async step => {
          for (const begun = performance.now(); !is(step);) {
            const problem = document.querySelector('.problem')?.textContent
            if (problem || performance.now() - begun > 60_000) throw new Error(`no step ${step}: ${output()}, ${actions().length} actions, ${problem ?? 'no problem'}, ${location.hash}`)
            await new Promise(done => setTimeout(done, 2))
          }
        }
        const times = []
        await until(0)
        for (let step = 1; step <= 60; step++) {
          const begun = performance.now()
          actions()[(step + round) % actions().length].click()
          await until(step)
          times.push(performance.now() - begun)
        }
        return times
      }, round))
      heaps.push(await heap())
    }
    times.sort((a, b) => a - b)
    const at = share => times[Math.floor(times.length * share)].toFixed(0)
    console.log(`    ${times.length} steps beside a search: median ${at(0.5)} ms, p99 ${at(0.99)} ms; heap after each 60: ${heaps.map(mb => mb.toFixed(2)).join(', ')} MB; ${availableParallelism()} cores`)
    assert(heaps.at(-1) < heaps[0] * 1.15 + 0.5, `the page grows: ${heaps}`)
    await other.locator('.found').waitFor({ timeout: 610_000 })
    const told = await other.locator('.found p').first().innerText()
    console.log(`    ${told}`)
    assert.match(told, /^complete .*: 850152 states/)
    await other.close()
  },

  async 'a rule that is put back stops the schedule'() {
    await open('#/')
    await page.getByRole('link', { name: 'Put it back: L-1', exact: true }).click()
    await page.locator('.compare tbody tr.divergence').waitFor()
    assert.match(await page.locator('.verdict').innerText(), /no property is violated/)
    await page.locator('.compare td.both').first().waitFor()
    await both('the comparison')
    await picture('compare')
  },

  async 'two stories are compared'() {
    await open('#/compare')
    const selects = page.locator('.picker select')
    await page.waitForFunction(() => document.querySelectorAll('.picker select option').length > 40)
    await selects.nth(0).selectOption({ label: 'L-11 single_writer' })
    await selects.nth(1).selectOption({ label: 'L-13 single_writer' })
    await page.locator('.compare tbody tr.divergence').waitFor()
    assert((await page.locator('.compare tbody tr').count()) > 10)
  },

  async 'what is exported is imported again as it was, and foreign text is shown as text'() {
    const { path, fingerprint } = JSON.parse(readFileSync(join(root, 'src/explorer/gallery.json'), 'utf8'))['L-16']
    await open(`#/model/L-16?path=${path}&fp=${fingerprint}`)
    await page.locator('.diagram').waitFor()
    const files = { ITF: 'a.itf.json', NDJSON: 'a.ndjson', PlantUML: 'a.puml', HTML: 'a.html' }
    for (const [button, name] of Object.entries(files)) await download(button, name)
    assert.match(readFileSync(join(work, 'a.puml'), 'utf8'), /^@startuml[\s\S]*@enduml\n$/)
    await page.locator('nav a', { hasText: 'Traces' }).click()
    for (const [button, name] of [['ITF', 'a.itf.json'], ['NDJSON', 'a.ndjson']]) {
      await page.locator('#files').setInputFiles(join(work, name))
      await page.locator('.diagram').waitFor()
      const again = await download(button, `again-${name}`)
      assert.equal(readFileSync(again, 'utf8'), readFileSync(join(work, name), 'utf8'), `${button}: the round trip is equal`)
    }
    const evil = JSON.stringify({ '#meta': { description: EVIL }, vars: ['x'], states: [{ x: EVIL }, { x: 1, '#meta': { action: EVIL, node: '0' } }] })
    writeFileSync(join(work, 'evil.itf.json'), evil)
    await page.locator('#files').setInputFiles(join(work, 'evil.itf.json'))
    await page.locator('h1', { hasText: '<img' }).waitFor()
    assert((await page.locator('.label').allInnerTexts()).some(text => text.includes(EVIL)))
    assert.equal(await page.locator('main img').count(), 0)
    assert.notEqual(await page.title(), 'hit')
    writeFileSync(join(work, 'bad.json'), 'no trace')
    await page.locator('#files').setInputFiles(join(work, 'bad.json'))
    assert.match(await page.getByRole('alert').innerText(), /bad\.json: neither NDJSON/)
    await accessible('a problem')
  },

  async 'the traces of the nodes of one run are opened together'() {
    const traces = join(work, 'traces')
    execFileSync(tenure, ['sim', 'lease', '--seed', '7', '--hours', '0.03', '--trace-dir', traces])
    await open('#/open')
    await page.locator('#files').setInputFiles([0, 1, 2, 3, 4].map(node => join(traces, `n${node}.ndjson`)))
    await page.locator('.note', { hasText: 'accepted' }).waitFor()
    assert.equal(await page.locator('.lane').count(), 5)
    await page.keyboard.press('End')
    await page.locator('.properties .good', { hasText: 'unique_holder_per_epoch' }).waitFor()
    await accessible('a run of nodes')
    await picture('run')
  },

  async 'a share link leads to the same state, and one of another model is refused'() {
    await open('#/')
    await page.getByRole('link', { name: 'Show I-7', exact: true }).click()
    await page.locator('.diagram').waitFor()
    await page.getByRole('button', { name: 'Share link' }).click()
    await page.getByRole('button', { name: 'Copied' }).waitFor()
    const link = await page.evaluate(() => navigator.clipboard.readText())
    assert.match(link, /fp=[0-9a-f]{16}/)
    const other = await context.newPage()
    await other.goto(link)
    await other.locator('.diagram').waitFor()
    assert.equal(await other.locator('.what').innerText(), await page.locator('.what').innerText())
    await other.goto('about:blank')
    await other.goto(link.replace('/I-7', '/I-6'))
    await other.getByRole('alert').waitFor()
    assert.match(await other.getByRole('alert').innerText(), /made for another model/)
    await other.close()
  },

  async 'a report opens from a disk, without a server'() {
    const out = join(work, 'report.html')
    execFileSync(tenure, ['explore', '--html', out, 'L-1'])
    for (const path of [out, join(work, 'a.html')]) {
      const other = await context.newPage()
      const asked = []
      other.on('request', request => asked.push(request.url()))
      await other.goto(`file://${path}`)
      await other.locator('.diagram').waitFor()
      await other.keyboard.press('End')
      await other.locator('aside .alert').first().waitFor()
      await other.locator('.tree .mark').first().waitFor()
      const { length } = await other.locator('.label').all()
      await other.locator('.actions button').first().click()
      await other.getByRole('button', { name: 'Back to the story' }).waitFor()
      assert.equal((await other.locator('.label').all()).length, length + 1, 'another way is tried without a server')
      await accessible('another way in a report', other)
      await other.getByRole('button', { name: 'Back to the story' }).click()
      assert.deepEqual(asked, [`file://${path}`], 'nothing is loaded')
      await accessible('a report', other)
      await other.close()
    }
  },

  async 'a configuration is judged and its model explored'() {
    await open('#/config')
    await page.locator('.big', { hasText: 'SAFE' }).waitFor()
    await page.getByRole('button', { name: 'Check this configuration' }).click()
    await page.locator('.found').waitFor({ timeout: 240_000 })
    assert.match(await page.locator('.found').innerText(), /Every state was explored/)
    assert.match(await page.locator('.found').innerText(), /single_writer\s*holds/)
    await both('the configuration')
    await picture('config')
    await page.locator('.sliders input').first().fill('11')
    await page.locator('.big', { hasText: 'UNSAFE' }).waitFor()
    assert.equal(await page.locator('.margin .overlap-word').textContent(), 'OVERLAP')
    await both('an unsafe configuration')
    await picture('config-unsafe')
  },

  async 'a story of 10,000 steps scrolls'() {
    const lanes = [{ name: 'host n0', kind: 'host' }, { name: 'host n1', kind: 'host' }, { name: 'store n2', kind: 'store' }]
    const portrait = at => [{ role: 'holding', condition: 'running', bar: at % 40 < 30 ? 'hold' : 'hook', epoch: `${Math.floor(at / 40)}` }, { role: 'watching', condition: 'running', bar: 'watch' }, { role: `v${at}`, condition: 'running' }]
    const lines = [{ tenure_story: 1, title: 'long', source: 'model', clock: { unit: 'steps', common: true, about: 'none' }, lanes, first: { at: '0', lanes: portrait(0) }, steps: [] }]
    for (let at = 1; at <= 10_000; at++) {
      const sends = [{ uid: `${at}.0`, dst: (at % 2) + 1, msg: 'Write' }]
      const from = at > 3 && at % 2 === 0 ? { uid: `${at - 3}.0` } : {}
      lines.push({ kind: at % 2 ? 'fire' : 'deliver', label: `step ${at}`, actor: at % 2 ? 0 : 2, ...(at % 2 ? { sends } : { src: 0, dst: 2, msg: 'Write', ...from }), after: { at: `${at}`, lanes: portrait(at) } })
    }
    writeFileSync(join(work, 'long.ndjson'), lines.map(line => JSON.stringify(line)).join('\n'))
    await open('#/open')
    await page.locator('#files').setInputFiles(join(work, 'long.ndjson'))
    await page.locator('.diagram').waitFor()
    const measured = await page.evaluate(async () => {
      const element = document.querySelector('.diagram')
      const gaps = []
      let last = performance.now()
      const begun = last
      while (performance.now() - begun < 3000 || gaps.length < 60) {
        await new Promise(done => requestAnimationFrame(done))
        const now = performance.now()
        gaps.push(now - last)
        last = now
        element.scrollTop += 60
      }
      const seconds = (last - begun) / 1000
      gaps.sort((a, b) => a - b)
      return { frames: gaps.length / seconds, worst: gaps.at(-1), top: element.scrollTop, nodes: document.querySelectorAll('.diagram *').length }
    })
    console.log(`    10,000 steps: ${measured.frames.toFixed(1)} frames/s, worst gap ${measured.worst.toFixed(0)} ms, ${measured.nodes} elements, ${availableParallelism()} cores`)
    assert(measured.top > 3000 && measured.nodes < 3000, 'only what is in view is drawn')
  },

  async 'it fits a phone'() {
    await page.setViewportSize({ width: 390, height: 800 })
    for (const hash of ['#/', '#/config', `#/model/L-1?path=${JSON.parse(readFileSync(join(root, 'src/explorer/gallery.json'), 'utf8'))['L-1'].path}`]) {
      await open(hash)
      await page.waitForTimeout(300)
      const wide = await page.evaluate(() => document.documentElement.scrollWidth - document.documentElement.clientWidth)
      assert(wide <= 0, `${hash} is ${wide} px too wide`)
      await accessible(`${hash} on a phone`)
    }
    await picture('phone')
    await page.setViewportSize({ width: 1360, height: 850 })
  },

  async 'nothing was asked of anybody else, and the policy was never broken'() {
    assert.deepEqual(foreign, [])
    assert.deepEqual(problems, [])
  },
}

/** How long a test may take, in ms: one that hangs has failed. */
const LIMIT = 700_000
const bounded = async test => {
  let timer
  const late = new Promise((_, reject) => { timer = setTimeout(() => reject(new Error(`it did not end within ${LIMIT / 1000} s`)), LIMIT) })
  await Promise.race([test(), late]).finally(() => clearTimeout(timer))
}

let failed = 0
let count = 0
try {
  for (const [name, test] of Object.entries(tests).filter(([name]) => name.includes(process.env.ONLY ?? ''))) {
    count++
    try {
      await bounded(test)
      console.log(`  ok  ${name}`)
    } catch (error) {
      failed++
      console.log(`FAIL  ${name}\n${error.stack}`)
      await page.screenshot({ path: join(tmpdir(), `tenure-e2e-failure-${failed}.png`) }).catch(() => undefined)
    }
  }
} finally {
  await context.close()
  server.kill()
  rmSync(work, { recursive: true, force: true })
}
console.log(failed === 0 ? `all ${count} passed` : `${failed} failed`)
process.exit(failed === 0 && count > 0 ? 0 : 1)
