import { z } from 'zod'

/** Whom to believe of a service that is reached over https; the name is that of OpenStack's own settings. */
export const cafile = (whose: string) =>
  z
    .string()
    .min(1)
    .nullable()
    .default(null)
    .describe(`Authorities that sign ${whose} for https, PEM, instead of the well-known ones.`)
