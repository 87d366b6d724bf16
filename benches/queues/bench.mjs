// Chains of durable steps: an operation is a chain of `steps` jobs, each of which enqueues the next one
// when it has run; `inflight` operations are under way at a time. One JSON object a line.
//
//   node bench.mjs pg-boss|graphile-worker URL OPERATIONS STEPS INFLIGHT

import pg from 'pg';

const [system, url, ...numbers] = process.argv.slice(2);
const [operations, steps, inflight] = numbers.map(Number);
if (!system || !url || !(operations > 0) || !(steps > 0) || !(inflight > 0)) {
  console.error('usage: bench.mjs pg-boss|graphile-worker URL OPERATIONS STEPS INFLIGHT');
  process.exit(2);
}

/** Runs every operation, `inflight` at a time; `begin` starts one, `finished` ends it. */
function race(begin) {
  const started = new Map();
  const took = [];
  let next = 0;
  let done;
  const all = new Promise((resolve) => (done = resolve));
  const fill = async () => {
    while (next < operations && started.size < inflight) {
      const operation = next++;
      started.set(operation, performance.now());
      await begin(operation);
    }
  };
  const finished = async (operation) => {
    took.push(performance.now() - started.get(operation));
    started.delete(operation);
    if (took.length === operations) done();
    else await fill();
  };
  return { fill, finished, all, took };
}

/** What the server has flushed so far: WAL syncs, of whatever session. */
async function syncs(pool) {
  await pool.query('select pg_stat_force_next_flush()').catch(() => {});
  const { rows } = await pool.query('select wal_sync::float8 as n from pg_stat_wal');
  return rows[0].n;
}

async function pgBoss(measure) {
  const { PgBoss } = await import('pg-boss');
  const boss = new PgBoss({ connectionString: url, max: 20, supervise: false, schedule: false });
  boss.on('error', (error) => console.error(error));
  await boss.start();
  await boss.createQueue('steps');
  const { fill, finished, all, took } = race((operation) =>
    boss.send('steps', { operation, step: 1 }),
  );
  // The shortest polling interval that it takes; a worker takes all that is there.
  const options = { pollingIntervalSeconds: 0.5, batchSize: inflight };
  for (let worker = 0; worker < 2; worker++) {
    await boss.work('steps', options, async (jobs) => {
      const more = jobs.filter((job) => job.data.step < steps);
      if (more.length > 0) {
        const next = ({ data }) => ({ data: { operation: data.operation, step: data.step + 1 } });
        await boss.insert('steps', more.map(next));
      }
      for (const job of jobs) {
        if (job.data.step === steps) await finished(job.data.operation);
      }
    });
  }
  await measure(fill, all, took);
  await boss.stop({ graceful: false });
}

async function graphileWorker(measure) {
  const { run, makeWorkerUtils, Logger } = await import('graphile-worker');
  const utils = await makeWorkerUtils({ connectionString: url });
  await utils.migrate();
  let race_;
  const runner = await run({
    connectionString: url,
    concurrency: 20,
    maxPoolSize: 20,
    pollInterval: 500,
    noHandleSignals: true,
    logger: new Logger(() => () => {}),
    taskList: {
      step: async ({ operation, step }, helpers) => {
        if (step < steps) await helpers.addJob('step', { operation, step: step + 1 });
        else await race_.finished(operation);
      },
    },
  });
  race_ = race((operation) => utils.addJob('step', { operation, step: 1 }));
  await measure(race_.fill, race_.all, race_.took);
  await runner.stop();
  await utils.release();
}

const pool = new pg.Pool({ connectionString: url, max: 1 });
async function measure(fill, all, took) {
  const before = await syncs(pool);
  const begun = performance.now();
  await fill();
  await all;
  const seconds = (performance.now() - begun) / 1000;
  // Statistics of other sessions arrive within a second.
  await new Promise((resolve) => setTimeout(resolve, 1500));
  const after = await syncs(pool);
  took.sort((one, other) => one - other);
  const at = (part) => took[Math.min(took.length - 1, Math.floor(took.length * part))];
  console.log(
    JSON.stringify({
      system, operations, steps, inflight, seconds,
      per_second: operations / seconds, syncs_per_operation: (after - before) / operations,
      p50_ms: at(0.5), p99_ms: at(0.99),
    }),
  );
}

await (system === 'pg-boss' ? pgBoss : graphileWorker)(measure);
await pool.end();
process.exit(0);
