// A state as a tree. What has changed is open and marked, by colour, sign and word; the rest is folded.
import type { Change, Tree } from './types'

type Marks = Map<string, Change>

const SIGN = { added: '+', removed: '−', changed: '±' } as const

const brief = (tree: Tree): string => {
  if (typeof tree === 'string') return tree
  if (Array.isArray(tree)) return tree.length === 0 ? '[]' : `${tree.length} items`
  const names = Object.keys(tree)
  if (typeof tree.is === 'string') return tree.is
  return names.length === 0 ? '{}' : names.length === 1 ? names[0] : `${names.length} fields`
}

const flat = (tree: Tree): string => {
  if (typeof tree === 'string') return tree
  if (Array.isArray(tree)) return `[${tree.map(flat).join(', ')}]`
  const { is, ...rest } = tree
  const fields = Object.entries(rest).map(([name, value]) => `${name}: ${flat(value)}`)
  return `${typeof is === 'string' ? `${is} ` : ''}{${fields.join(', ')}}`
}

function Mark({ change }: { change: Change }) {
  return <span class={`mark ${change.kind}`}><span aria-hidden="true">{SIGN[change.kind]}</span> {change.kind}</span>
}

function Branch({ name, tree, path, marks, depth }: { name: string; tree: Tree; path: string; marks: Marks; depth: number }) {
  const change = marks.get(path)
  const inside = [...marks.keys()].some(other => other.startsWith(`${path}/`))
  const was = change?.kind === 'changed' && change.before !== undefined && (
    <><del>{flat(change.before)}</del> <span aria-hidden="true">→</span> </>
  )
  const label = <span class="key">{name}</span>
  if (typeof tree === 'string' || Object.keys(tree).length === 0) {
    return <li class={change?.kind}>{label} {was}<span class="value">{brief(tree)}</span> {change && <Mark change={change} />}</li>
  }
  const children = Array.isArray(tree) ? tree.map((child, at) => [String(at), child] as const) : Object.entries(tree).filter(([key]) => key !== 'is')
  const gone = [...marks.values()].filter(one => one.kind === 'removed' && one.path.slice(0, -1).join('/') === path)
  return (
    <li class={change?.kind}>
      <details open={depth < 1 || inside || change !== undefined}>
        <summary>{label} <span class="kind">{brief(tree)}</span> {change && <Mark change={change} />}</summary>
        <ul>
          {was && <li class="removed">{was}</li>}
          {gone.map(one => (
            <li class="removed" key={`-${one.path.join('/')}`}><span class="key">{one.path.at(-1)}</span> <del>{flat(one.before ?? '')}</del> <Mark change={one} /></li>
          ))}
          {children.map(([key, child]) => (
            <Branch key={key} name={key} tree={child} path={path ? `${path}/${key}` : key} marks={marks} depth={depth + 1} />
          ))}
        </ul>
      </details>
    </li>
  )
}

//= SPEC EXPLORER-5
export function StateTree({ tree, changes }: { tree: Tree; changes: Change[] }) {
  const marks: Marks = new Map(changes.map(change => [change.kind === 'removed' ? `-${change.path.join('/')}` : change.path.join('/'), change]))
  const summary = changes.length === 0 ? 'nothing has changed in this step' : `${changes.length} ${changes.length === 1 ? 'change' : 'changes'} in this step`
  // A removed value has no place in the newer tree: its parent is opened instead.
  for (const change of changes) {
    if (change.kind === 'removed') marks.set(`${change.path.slice(0, -1).join('/')}/`, change)
  }
  return (
    <div class="tree">
      <p class="quiet">{summary}</p>
      <ul><Branch name="state" tree={tree} path="" marks={marks} depth={0} /></ul>
    </div>
  )
}
