import { writeFileSync } from 'node:fs'
import { openApiDocument } from '../src/api/openapi.ts'
import { ROUTES } from '../src/api/v3/index.ts'

/** Writes the OpenAPI document into the tree; a test fails while the committed one differs from the routes. */
const target = new URL('../openapi/cinder.json', import.meta.url)
writeFileSync(target, `${JSON.stringify(await openApiDocument(ROUTES), null, 2)}\n`)
