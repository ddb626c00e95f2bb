import type { CopyHolder } from '../../../src/sheep/copies/copy-holder.ts'
import type { CopyAnswer, CopyRequest } from '../../../src/sheep/copies/messages.ts'

/** What a holder answers, once it does; rejects when its disk failed. */
export function answerOf(holder: CopyHolder, request: CopyRequest): Promise<CopyAnswer> {
  return new Promise((resolve, reject) =>
    holder.answer(request, (answer) => (answer instanceof Error ? reject(answer) : resolve(answer))),
  )
}
