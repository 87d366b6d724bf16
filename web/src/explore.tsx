// A model, walked by hand: the path so far as a story, and what can happen next.
import { useEffect, useRef, useState } from 'preact/hooks'
import { follow, get } from './api'
import type { Route } from './main'
import { StoryView, type Where } from './view'
import type { Found, ModelRow, Progress, Shown, Story } from './types'

interface Props {
  route: Route
  go: (route: Partial<Route>) => void
  onProblem: (error: Error | null) => void
}

const numbers = (path: string) => (path === '' ? [] : path.split('.'))

export function Explore({ route, go, onProblem }: Props) {
  const { id: model, path } = route
  const [story, setStory] = useState<Story | null>(null)
  const [state, setState] = useState<Shown | null>(null)
  const [found, setFound] = useState<Found | null>(null)
  const [progress, setProgress] = useState<Progress | null>(null)
  const [copied, setCopied] = useState(false)
  const running = useRef<AbortController | null>(null)
  const steps = numbers(path)
  const row = Math.min(route.row ?? steps.length, steps.length)
  const here = steps.slice(0, row).join('.')

  useEffect(() => () => running.current?.abort(), [model])
  useEffect(() => { setFound(null); setStory(null); setState(null) }, [model])
  useEffect(() => {
    let current = true
    get<Story>('story', { model, path, fingerprint: route.fingerprint })
      .then(story => { if (current) { setStory(story); onProblem(null) } })
      .catch((error: Error) => current && onProblem(error))
    return () => { current = false }
  }, [model, path])
  useEffect(() => {
    let current = true
    get<Shown>('state', { model, path: here })
      .then(state => current && setState(state))
      .catch((error: Error) => current && onProblem(error))
    return () => { current = false }
  }, [model, here])

  const onWhere = (where: Partial<Where>) => go({ ...where })
  const take = (index: number) => {
    const next = [...steps.slice(0, row), index]
    go({ path: next.join('.'), row: next.length, fingerprint: '' })
  }
  const run = async (goal: string) => {
    running.current?.abort()
    const control = new AbortController()
    running.current = control
    setFound(null)
    setProgress({ unique: '0', generated: '0', depth: 0, waiting: '0', seconds: 0 })
    try {
      const found = await follow('search', { model, goal }, setProgress, control.signal)
      setFound(found)
      const path = goal ? found.properties[0]?.path : null
      if (path !== null && path !== undefined) go({ path, row: numbers(path).length, fingerprint: '' })
    } catch (error) {
      if ((error as Error).name !== 'AbortError') onProblem(error as Error)
    } finally {
      if (running.current === control) { running.current = null; setProgress(null) }
    }
  }
  const share = async () => {
    const last = story?.steps.at(-1)?.after.fingerprint ?? story?.first.fingerprint ?? ''
    go({ fingerprint: last, row })
    await new Promise(done => setTimeout(done, 0))
    try {
      await navigator.clipboard.writeText(location.href)
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
      <ul class="actions">
        {known?.actions.map(action => (
          <li key={action.index}>
            <button type="button" onClick={() => take(action.index)} title={action.full}>
              <span class={`badge ${action.kind}`}>{action.kind}</span> {action.label}{action.idle && <em> no change</em>}
            </button>
          </li>
        ))}
      </ul>
      <details class="finder">
        <summary>Search all states</summary>
        <div class="buttons">
          <button type="button" onClick={() => run('')} disabled={progress !== null}>Explore every state</button>
          {known?.properties.map(({ name, always }) => (
            <button type="button" key={name} disabled={progress !== null} onClick={() => run(name)}>{always ? 'violate' : 'reach'} {name}</button>
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
          <p><b>{found.end}</b>: {found.unique} states, {found.generated} made, depth {found.depth}, {found.seconds.toFixed(2)} s</p>
          <ul class="properties">
            {found.properties.map(one => (
              <li key={one.name} class={one.verdict === 'violated' || one.verdict === 'never' ? 'bad' : one.verdict === 'unknown' ? 'quiet' : 'good'}>
                <code>{one.name}</code> {one.verdict}
                {one.path !== null && <button type="button" onClick={() => go({ path: one.path!, row: numbers(one.path!).length, fingerprint: '' })}>shortest path, {numbers(one.path).length} steps</button>}
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
        whole={() => get<Story>('story', { model, path, trees: '1' })}
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
