/**
 * Runs a range of seeds. `SEEDS` and `FIRST_SEED` choose another range than the test's own. A failure names the seed and the
 * command that replays it.
 */
export async function runSeeds(file: string, seeds: number, run: (seed: number) => Promise<void>): Promise<number> {
  const first = Number(process.env.FIRST_SEED ?? 1)
  const count = Number(process.env.SEEDS ?? seeds)
  for (let seed = first; seed < first + count; seed++) {
    try {
      await run(seed)
    } catch (error) {
      throw new Error(`seed ${seed} failed; replay: FIRST_SEED=${seed} SEEDS=1 npx vitest run ${file}`, {
        cause: error,
      })
    }
  }
  return count
}

/**
 * Gives a fuzzer `inputs` inputs (or `INPUTS` of the environment), `perSeed` to a seed, so that a failure is replayed by one
 * seed alone.
 */
export async function runInputs(
  file: string,
  inputs: number,
  perSeed: number,
  run: (seed: number, inputs: number) => Promise<void>,
): Promise<number> {
  const first = Number(process.env.FIRST_SEED ?? 1)
  const count = Number(process.env.INPUTS ?? inputs)
  for (let done = 0, seed = first; done < count; done += perSeed, seed++) {
    try {
      await run(seed, Math.min(perSeed, count - done))
    } catch (error) {
      const replay = `FIRST_SEED=${seed} INPUTS=${perSeed} npx vitest run ${file}`
      throw new Error(`an input of seed ${seed} failed; replay: ${replay}`, { cause: error })
    }
  }
  return count
}
