import { randomBytes, randomUUID } from 'node:crypto'

/** Unpredictable values: ids, tokens, export names, incarnations. The simulator's come from its seed. */
export interface Random {
  bytes(length: number): Buffer
  uuid(): string
}

export const systemRandom: Random = {
  bytes: (length) => randomBytes(length),
  uuid: () => randomUUID(),
}
