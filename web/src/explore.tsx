// A model, walked by hand: the path so far as a story, and what can happen next.
import { useEffect, useRef, useState } from 'preact/hooks'
import { follow, get } from './api'
import { print, type Route } from './route'
import { StateGraph } from './graph'
import { Actions, StoryView, type Where } from './view'
import type { Found, ModelRow, Progress, Shown, Story } from './types'

interface Props {
  route: Route
  go: (route: Partial<Route>) => void
  onProblem: (error: Error | null) => void
}

const numbers = (path: string) => (path === '' ? [] : path.split('.'))
const joined = (base: string, path: string) => [...numbers(base), ...numbers(path)].join('.')

const GOOD = ['holds', 'found', 'comes']
const BAD = ['violated', 'never', 'stays away', 'ends without it']

export function Explore({ route, go, onProblem }: Props) {
  const { id: model, path } = route
  const [story, setStory] = useState<Story | null>(null)
  const [state, setState] = useState<Shown | null>(null)
  const [found, setFound] = useState<(Found & { base: string }) | null>(null)
  const [progress, setProgress] = useState<Progress | null>(null)
  const [copied, setCopied] = useState(false)
  const [fromStart, setFromStart] = useState(false)
  const [words, setWords] = useState('')
  const running = useRef<AbortController | null>(null)
  const told = useRef<{ model: string; steps: string[]; story: Story } | null>(null)
  const steps = numbers(path)
  const row = Math.min(route.row ?? steps.length, steps.length)
  const here = steps.slice(0, row).join('.')

  useEffect(() => () => running.current?.abort(), [model])
  useEffect(() => { setFound(null); setStory(null); setState(null) }, [model])
  useEffect(() => {
    let current = true
    // Only what is new of it is asked for: a step is one step, however long the story is.
    const old = told.current?.model === model ? told.current : null
    let from = 0
    if (old) while (from < steps.length && steps[from] === old.steps[from]) from++
    get<Story>('story', { model, path, fingerprint: route.fingerprint, from: String(from), back_to: route.loop === null ? '' : String(route.loop) })
      .then(part => {
        if (!current) return
        const story = { ...part, steps: [...(old?.story.steps.slice(0, from) ?? []), ...part.steps] }
        told.current = { model, steps, story }
        setStory(story)
        onProblem(null)
      })
      .catch((error: Error) => current && onProblem(error))
    return () => { current = false }
  }, [model, path, route.loop])
  useEffect(() => {
    let current = true
    get<Shown>('state', { model, path: here })
      .then(state => current && setState(state))
      .catch((error: Error) => current && onProblem(error))
    return () => { current = false }
  }, [model, here])

  const onWhere = (where: Partial<Where>) => go({ ...where })
  const show = (path: string, loop: number | null = null) => go({ path, row: numbers(path).length, fingerprint: '', loop })
  const take = (index: number) => show(joined(here, String(index)))
  const run = async (what: string, query: Record<string, string>) => {
    running.current?.abort()
    const control = new AbortController()
    running.current = control
    setFound(null)
    setProgress({ unique: '0', generated: '0', depth: 0, waiting: '0', seconds: 0 })
    const base = fromStart ? '' : here
    try {
      const found = await follow(what, { model, path: base, ...query }, setProgress, control.signal)
      setFound({ ...found, base })
      onProblem(null)
      const [only] = found.properties
      // What was looked for is shown; of all there is, the reader chooses.
      if (found.properties.length === 1 && only.path !== null && (query.goal || query.node || query.property)) show(joined(base, only.path), loopOf(only, base))
    } catch (error) {
      if ((error as Error).name !== 'AbortError') onProblem(error as Error)
    } finally {
      if (running.current === control) { running.current = null; setProgress(null) }
    }
  }
  const loopOf = (one: Found['properties'][number], base: string) => (one.back_to === null || one.back_to === undefined ? null : one.back_to + numbers(base).length)
  const share = async () => {
    const last = story?.steps.at(-1)?.after.fingerprint ?? story?.first.fingerprint ?? ''
    go({ fingerprint: last, row })
    try {
      // Not what the browser's bar says, which may not have come so far.
      await navigator.clipboard.writeText(new URL(print({ ...route, fingerprint: last, row }), location.href).href)
      setCopied(true)
      setTimeout(() => setCopied(false), 2000)
    } catch { /* the address bar has it */ }
  }

  if (!story) return <p class="page quiet">…</p>
  const known = state?.path === here ? state : null
  const actions = (
    <>
      <h3>What can happen next</h3>
      {known && known.actions.length === 0 && <p class="quiet">{known.within ? 'nothing' : 'the model ends here: this is beyond its bounds'}</p>}
      <Actions actions={known?.actions ?? []} onTake={action => take(action.index)} />
      <details class="finder">
        <summary>Search for a state</summary>
        <label class="from">from <select value={fromStart ? 'start' : 'here'} onChange={event => setFromStart(event.currentTarget.value === 'start')}><option value="here">the shown state</option><option value="start">the beginning</option></select> on</label>
        <div class="buttons">
          <button type="button" onClick={() => run('search', {})} disabled={progress !== null}>Explore every state</button>
          {known?.properties.map(({ name, always }) => (
            <button type="button" key={name} disabled={progress !== null} onClick={() => run('search', { goal: name })}>{always ? 'violate' : 'reach'} {name}</button>
          ))}
        </div>
        <form class="node-search" onSubmit={event => { event.preventDefault(); if (words.trim()) void run('search', { node: words }) }}>
          <label>one node is <input value={words} onInput={event => setWords(event.currentTarget.value)} placeholder="host paused holding" /></label>
          <button type="submit" class="button" disabled={progress !== null || !words.trim()}>Find</button>
        </form>
        <p class="quiet">Can it stay away for ever?</p>
        <div class="buttons">
          {known?.properties.filter(one => !one.always).map(({ name }) => (
            <button type="button" key={name} disabled={progress !== null} onClick={() => run('loop', { property: name, again: '1' })}>no more {name}</button>
          ))}
        </div>
      </details>
      {progress && (
        <p class="progress" role="status">
          <progress aria-label="exploring" /> {progress.unique} states, depth {progress.depth}, {progress.waiting} waiting, {progress.seconds.toFixed(1)} s
          <button type="button" onClick={() => running.current?.abort()}>Stop</button>
        </p>
      )}
      {found && (
        <div class="found" role="status">
          <p><b>{found.end}</b> {found.base === '' ? 'from the beginning' : `from step ${numbers(found.base).length}`}: {found.unique} states, {found.generated} made, depth {found.depth}, {found.seconds.toFixed(2)} s</p>
          <ul class="properties">
            {found.properties.map(one => (
              <li key={one.name} class={BAD.includes(one.verdict) ? 'bad' : GOOD.includes(one.verdict) ? 'good' : 'quiet'}>
                <code>{one.name}</code> {one.verdict}
                {one.path !== null && <button type="button" onClick={() => show(joined(found.base, one.path!), loopOf(one, found.base))}>{loopOf(one, found.base) === null ? 'shortest path' : 'the loop'}, {numbers(one.path).length} steps</button>}
              </li>
            ))}
          </ul>
        </div>
      )}
    </>
  )
  return (
    <div class="page">
      <div class="heading">
        <h1>{model}</h1>
        <a class="button" href={`#/compare?left=${encodeURIComponent(`${model}|${path}`)}`}>Compare</a>
        {/^[LI]-/.test(model) && path !== '' && <a class="button" href={`#/compare?left=${encodeURIComponent(`${model}|${path}`)}&mended=1`}>Put the rule back</a>}
        <button type="button" class="button" onClick={share}>{copied ? 'Copied' : 'Share link'}</button>
      </div>
      <StoryView
        story={story} state={known} actions={actions} onProblem={onProblem}
        where={{ row: Math.min(row, story.steps.length), actors: route.actors, query: route.query }} onWhere={onWhere}
        whole={form => get<Story>('story', { model, path, [form === 'html' ? 'around' : 'trees']: '1' })}
        graph={<StateGraph model={model} path={here} onPath={show} onProblem={onProblem} />}
      />
    </div>
  )
}

export function ModelList({ onProblem }: { onProblem: (error: Error | null) => void }) {
  const [models, setModels] = useState<ModelRow[]>([])
  useEffect(() => { get<ModelRow[]>('models').then(setModels, onProblem) }, [])
  const table = (title: string, rows: ModelRow[]) => (
    <section>
      <h2>{title}</h2>
      <div class="scroll" tabIndex={0} role="region" aria-label={title}>
      <table class="models">
        <thead><tr><th scope="col">model</th><th scope="col">what it is about</th><th scope="col" class="number">states</th></tr></thead>
        <tbody>
          {rows.map(row => (
            <tr key={row.id}><td><a href={`#/model/${encodeURIComponent(row.id)}`}>{row.id}</a></td><td>{row.about}</td><td class="number">{row.states?.toLocaleString('en') ?? ''}</td></tr>
          ))}
        </tbody>
      </table>
      </div>
    </section>
  )
  const safe = models.filter(row => !row.is_mutant)
  return (
    <div class="page">
      <h1>Models</h1>
      <p class="lead">Walk any of them by hand, or search all of its states. What must fail is in the <a href="#/">gallery</a>.</p>
      {table('The lease', safe.filter(row => row.protocol === 'lease'))}
      {table('Operations between regions', safe.filter(row => row.protocol === 'irc'))}
    </div>
  )
}
